"""Hooks of the site's build: a line `<!-- help: prep -->` in a page becomes what `nemo prep --help` says, and a line
`<!-- notebook: FILE.ipynb -->` the notebook, with what its cells say and draw when they are run. (With NO_NOTEBOOK in
the environment they are not.)

The texts are those that click itself would print, so that page and terminal cannot differ. (mkdocs-click does not know
rich_click's formatter, nor the sentinel by which click 8.2 and later mark an option without a default.)
"""

from __future__ import annotations

import html
import inspect
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

to_markdown = runpy.run_path(str(Path(__file__).with_name("notebooks.py")))["to_markdown"]

_HELP = re.compile(r"^<!-- help: ([\w-]+) -->$", re.MULTILINE)
_NOTEBOOK = re.compile(r"^<!-- notebook: (\S+) -->$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this with the source of every page."""
    markdown = _HELP.sub(lambda match: "\n".join(_help_of(match[1])), markdown)
    return _NOTEBOOK.sub(lambda match: to_markdown(Path(match[1]), "NO_NOTEBOOK" not in os.environ), markdown)


def _help_of(name: str) -> Iterator[str]:
    """Markdown and HTML lines: description, usage, options. Raises KeyError when there is no such command."""
    from nemo_cli.main import COMMANDS, load

    if name not in COMMANDS:
        raise KeyError(f"there is no command {name!r}")
    command = load(name)
    context = click.Context(command, info_name=f"nemo {name}", **command.context_settings)
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        yield f"<p>{_text(' '.join(paragraph.split()))}</p>"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"\n```text\n{usage}\n```\n\n## Options\n"
    yield '<dl class="options">'
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or isinstance(parameter, click.Argument):
            continue  # an argument is in the usage, and the description says what it is
        names, text = record
        anchor = max(parameter.opts, key=len).lstrip("-")
        link = f'<a class="headerlink" href="#{anchor}" title="Link to this option">&para;</a>'
        yield f'<dt id="{anchor}"><code>{html.escape(names)}</code> {link}</dt>'
        yield f"<dd>{_text(text)}</dd>"
    yield "</dl>"


def _text(text: str) -> str:
    """Help text as HTML: text between backticks is code."""
    return _CODE.sub(r"<code>\1</code>", html.escape(text, quote=False))
