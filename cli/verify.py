"""`nemo verify`: is a prepared file whole, and does it make sense?"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import rich_click as click

from nemo_pipeline.store.text import pluralize

from .console import err, new_progress, new_table, out, print_json, say, styled

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path), metavar="OUT.h5")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(data: Path, as_json: bool) -> None:
    """Check structure, shards, hashes, ranges and labels of OUT.h5, and name what is wrong.

    Exit code: 0 when there is no error, 1 otherwise.
    """
    from nemo_pipeline.store.isolated import Isolated

    with Isolated() as process:
        if err.is_terminal:
            with new_progress("videos") as bar:
                task = bar.add_task("checking", total=1, note="")
                findings = process.verify(data, lambda n, total: bar.update(task, completed=n, total=total))
        else:
            findings = process.verify(data)
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        print_json(
            {
                "file": data,
                "ok": not errors,
                "findings": [{"level": f.level, "where": f.where, "text": f.text} for f in findings],
            }
        )
    else:
        if findings:
            rows = [(styled(f.level, _STYLES[f.level]), f.where, f.text) for f in findings]
            out.print(new_table("", ["", "where", "what"], rows))
        counts = Counter(finding.level for finding in findings)
        found = [pluralize(counts[level], level) for level in ("error", "warning", "note") if counts[level]]
        say(f"{data}: {', '.join(found)}." if found else f"{data}: no issues found.")
    sys.exit(1 if errors else 0)
