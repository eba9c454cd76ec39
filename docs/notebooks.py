"""Runs a notebook for the site: `python docs/notebooks.py NOTEBOOK` in an empty folder prints what each code cell said
and drew, as JSON. The cells run one after the other in one namespace, as in Jupyter: a line that begins with `!` is a
command of the shell, and the value of a last expression is shown.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

Cell = dict[str, Any]
_COMMAND = re.compile(r"^!(.+)$", re.MULTILINE)


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook, their source as one text."""
    cells: list[Cell] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{"kind": cell["cell_type"], "source": "".join(cell["source"])} for cell in cells]


def to_markdown(path: Path, run: bool) -> str:
    """A notebook as a page; with `run`, with what its cells say and draw. Raises RuntimeError where one fails."""
    outputs: list[Cell] = []
    if run:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, str(Path(__file__).resolve()), str(path.resolve())]
            beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # `nemo` itself
            done = subprocess.run(
                words,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PATH": beside},
            )
        if done.returncode:
            raise RuntimeError(f"{path} does not run:\n{done.stderr}")
        outputs = json.loads(done.stdout)
    parts, told = [], iter(outputs)
    for cell in read_cells(path):
        if cell["kind"] != "code":
            parts.append(cell["source"])
            continue
        parts.append(f"```python\n{cell['source']}\n```")
        output = next(told, {"text": "", "pictures": []})
        if output["text"].strip():
            parts.append(f"```text\n{output['text'].rstrip()}\n```")
        parts += [
            f'<img alt="What the cell draws" src="data:image/png;base64,{png}">' for png in output["pictures"]
        ]
    return "\n\n".join(parts)


def _run_cell(source: str, namespace: dict[str, Any]) -> Cell:
    import matplotlib.pyplot as plt

    code = ast.parse(_COMMAND.sub(lambda found: f"__shell({found[1]!r})", source))
    last = code.body.pop() if code.body and isinstance(code.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "<cell>", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
            if value is not None:
                print(value)
    pictures = []
    for number in plt.get_fignums():
        content = io.BytesIO()
        plt.figure(number).savefig(content, dpi=80, bbox_inches="tight")
        pictures.append(base64.b64encode(content.getvalue()).decode())
    plt.close("all")
    return {"text": said.getvalue(), "pictures": pictures}


def _shell(command: str) -> None:
    done = subprocess.run(
        command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}")
    print(done.stdout, end="")


def main() -> None:
    """Run the notebook that is named."""
    import matplotlib as mpl

    mpl.use("Agg")
    namespace: dict[str, Any] = {"__name__": "__main__", "__shell": _shell}
    cells = [cell for cell in read_cells(Path(sys.argv[1])) if cell["kind"] == "code"]
    print(json.dumps([_run_cell(cell["source"], namespace) for cell in cells]))


if __name__ == "__main__":
    main()
