# Recipes of https://just.systems; CONTRIBUTING.md has the same commands without it.

# What a change has to pass.
check: lint
    python -m pytest -n auto --dist loadfile

lint:
    ruff check .
    ruff format --check .
    mypy

# The default suite, or the tests of one module: `just test stages/warp`.
test path="":
    python -m pytest {{ if path == "" { "" } else { "tests/" + replace_regex(path, '([^/]+)$', 'test_$1.py') } }}

slow:
    python -m pytest -m slow

# The site, into site/. Warnings are errors.
docs:
    NO_MKDOCS_2_WARNING=1 mkdocs build --strict

# A benchmark, with its arguments: `just bench prep clips/`.
bench name *arguments:
    python benchmarks/{{ name }}.py {{ arguments }}

# Everything in a clean environment.
ci:
    .ci/run
