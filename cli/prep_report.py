"""What `nemo prep` says at its end: the table of videos or the JSON, and which labels did not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_pipeline.status import Status
from nemo_pipeline.store.text import listed, pluralize

from .console import err, escape_controls, new_table, print_json, say, styled, warn
from .options import in_options


def report(summary: Any, options: dict[str, Any], warn_unlabelled: bool) -> None:
    """The table (or JSON) at the end, and what did not fit."""
    if options["as_json"]:
        print_json(
            {
                "output": summary.output,
                "counts": summary.counts,
                "seconds": round(summary.seconds, 3),
                "frames_per_second": round(summary.frames_per_second, 2),
                "done_before": summary.done_before,
                "done_now": summary.done_now,
                "videos": summary.videos,
                "kept": sorted(summary.kept),
                "labels": _label_report(summary.matched),
                **({"missing": summary.missing} if options["join"] else {}),
            }
        )
    if options["quiet"]:
        return
    if not options["as_json"]:
        err.print(_table(summary))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.counts.items()))
    say(
        f"{summary.output}: {counts}; {pluralize(sum(row['length'] for row in summary.videos), 'frame')}. "
        f"{pluralize(summary.done_now, 'video')} in {summary.seconds:.1f} s, "
        f"{summary.frames_per_second:.0f} frames/s."
    )
    report_labels(summary.matched, summary.output if summary.part is None else None, warn_unlabelled)
    if summary.matched is not None and not options["labels"]:
        say(f"Labels are from {summary.matched.source}, found next to the videos.")
    if summary.part is not None:
        say(f"Part {summary.part} is done. When all are: nemo prep --join {summary.output}")
    elif not summary.n_usable:
        warn("no video is usable: the table says why.")
    elif not any(row["age"] == row["age"] for row in summary.videos):
        say(f"No ages yet: nemo label {summary.output} FILE puts them in; training needs them.")


def _label_report(matched: Any) -> dict[str, Any] | None:
    if matched is None:
        return None
    return {
        "videos_without_labels": matched.unlabelled,
        "labels_without_video": matched.unused,
        "ambiguous_labels": matched.ambiguous,
        "similar_names": matched.similar,
        "notes": matched.notes,
    }


def report_labels(matched: Any, path: Path | None, complain: bool = True) -> None:
    """How the label file was read; who has no label, and which labels have nobody: by name, both ways; and what cannot
    be right in the labels that the file `path` has now."""
    if matched is None or not complain:
        return
    from nemo_pipeline.batch.assemble import row_labels
    from nemo_pipeline.batch.labels import similar_names
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.store.verify import label_findings

    for note in matched.notes:
        say(note)
    unlabelled, findings = matched.unlabelled, []
    if path is not None:
        data = FaceDataset(path, check=False)
        labelled = {file for row, file in enumerate(data.videos["file"]) if row_labels(data, row)}
        unlabelled = [file for file in unlabelled if file not in labelled]  # others have them from before
        findings = [finding for finding in label_findings(data) if finding.level != "note"]
    for names, noun, text in (
        (unlabelled, "video", "without a label"),
        (matched.unused, "label", "without a video"),
        (matched.ambiguous, "label", "with a name that means several videos, not used (write the path)"),
    ):
        if names:
            warn(f"{pluralize(len(names), noun)} {text}: {listed(names, 20)}.")
    if matched.similar:
        warn(similar_names(matched))
    for finding in findings:
        warn(f"{finding.text[0].upper()}{finding.text[1:]}.")


def _table(summary: Any) -> Any:
    rows = []
    for row in summary.inputs:
        style = {"good": "green", "warn": "yellow"}.get(Status.read(row["status"]).severity, "red")
        rows.append(
            (
                row["id"],
                styled(row["status"], style),
                row["n_decoded"],
                row["length"],
                row["n_interpolated"],
                in_options(row["message"]),
            )
        )
    columns = ["video", "status", "decoded", "kept", "interpolated", "message"]
    return new_table("", columns, rows, right="decoded,kept,interpolated")


def exit_code(summary: Any, options: dict[str, Any]) -> int:
    """0 when a video is usable, with --strict when all are; else 1, and --quiet still says why."""
    if summary.n_usable and not (options["strict"] and summary.n_failed):
        return 0
    if options["quiet"]:  # no table was shown
        warn(why_not(summary))
    return 1


def why_not(summary: Any) -> str:
    """One sentence on the videos that are not usable: how many, and the first one's reason."""
    failed = [row for row in summary.inputs if not row["length"]]
    first = (
        f"{escape_controls(failed[0]['id'])}: {escape_controls(in_options(failed[0]['message']))}"
        if failed
        else "there is no row"
    )
    return f"{pluralize(len(failed), 'video')} of {len(summary.inputs)} not usable ({first})"
