"""What becomes of every clip in a folder: frames decoded, with a face, kept, and the status.

    python benchmarks/clips.py DIR [--expect FILE.md] [--json FILE] [--follow largest|central|all]
                               [--segments longest|all]

--expect names a page with Markdown tables that have columns `file`, `frames decoded` and `frames with a face`;
what they say of a clip is printed next to what was found.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.datatypes import row_name
from nemo_pipeline.stages.decode import DecodeError
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.streams import open_video
from nemo_pipeline.stages.track import Tracker
from nemo_pipeline.video import process_video


def frames_with_face(path: Path, config: PrepConfig) -> int:
    """In how many frames somebody is seen who is believed to be a person."""
    engine = load_engine(config.engine)
    seen: list[set[int]] = []
    try:
        with open_video(path, config.stream, engine) as reader:
            tracker = Tracker(engine, config.follow)
            seen = [{one.person for one in tracker.step(frame)} for frame in reader]
    except DecodeError:
        return 0
    return sum(any(tracker.trusted(person) for person in people) for people in seen)


def examine(path: Path, config: PrepConfig) -> dict[str, object]:
    """Process one clip in this process."""
    with tempfile.TemporaryDirectory(prefix="nemo-") as folder:
        result = process_video(path, config, Path(folder) / "clip")
    faces = frames_with_face(path, config) if result.n_decoded else 0
    return {
        "decoded": result.n_decoded,
        "with_face": faces,
        "seconds": result.seconds.get("total", 0.0),
        "warnings": list(result.warnings),
        "rows": [
            {
                "row": row_name("", row.person, row.segment),
                "kept": row.length,
                "interpolated": row.n_interpolated,
                "status": row.status,
                "message": row.message,
            }
            for row in result.rows
        ],
    }


def expectations(page: Path) -> dict[str, tuple[str, str]]:
    """(frames decoded, frames with a face) by file name, from the tables of a Markdown page."""
    expected: dict[str, tuple[str, str]] = {}
    columns: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not columns:
            columns = cells
        elif {"file", "frames decoded", "frames with a face"} <= set(columns) and len(cells) >= len(
            columns
        ) - 1:
            row = dict(zip(columns, cells, strict=False))
            name = row["file"].strip("`")
            decoded = re.match(r"\d*", row["frames decoded"])
            expected[name] = (decoded.group() if decoded else "", row["frames with a face"])
    return expected


def main() -> None:
    """Process every file, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder of clips, searched with its subfolders")
    parser.add_argument("--expect", type=Path, help="a Markdown page that says what to expect")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--follow", default="largest", choices=["largest", "central", "all"])
    parser.add_argument("--segments", default="longest", choices=["longest", "all"])
    options = parser.parse_args()
    config = PrepConfig(follow=options.follow, segments=options.segments)
    expected = expectations(options.expect) if options.expect else {}
    paths = sorted(p for p in options.folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    figures, rows = {}, []
    for path in paths:
        name = str(path.relative_to(options.folder))
        print(name, file=sys.stderr)
        found = examine(path, config)
        figures[name] = found
        results: list[dict[str, object]] = found["rows"]  # type: ignore[assignment]
        for k, row in enumerate(results):
            head = [name, str(found["decoded"]), str(found["with_face"])] if k == 0 else ["", "", ""]
            kept = f"{row['kept']}" + (
                f" ({row['interpolated']} interpolated)" if row["interpolated"] else ""
            )
            cells = [*head, str(row["row"]), kept, str(row["status"])]
            if expected:
                cells[1:1] = [" / ".join(expected.get(path.name, ("", ""))).strip(" /")] if k == 0 else [""]
            rows.append(cells)
    headings = ["clip", "decoded", "with a face", "row", "kept", "status"]
    if expected:
        headings[1:1] = ["expected: decoded / with a face"]
    print_table("What becomes of every clip", headings, rows)
    if options.json:
        result = {"machine": machine_facts(), "settings": config.to_dict(), "clips": figures}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
