"""`nemo label`: ages and other labels into a finished file."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from nemo_pipeline.store.text import pluralize

from .console import print_json, say
from .prep_inputs import describe
from .prep_report import report_labels


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path), metavar="OUT.h5")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--replace", is_flag=True, help="Remove the labels that are there, also those not in FILE.")
@click.option("--force", is_flag=True, help="With --replace: also when no age would be left.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(data: Path, file: Path, replace: bool, force: bool, as_json: bool) -> None:
    """Put the labels of FILE into OUT.h5. The videos are not needed.

    FILE: the database's own File_Details or Subject_Details text, or a CSV file with the columns video,
    subject, age, and optionally gender, expression, condition, fold. Usual other names of these columns are understood
    (file name, participant ID, age (years), sex), and columns that are not used are named. A video is named by its
    path, file name, stem or id.
    """
    from nemo_pipeline.batch.assemble import relabel
    from nemo_pipeline.batch.label_table import read_labels
    from nemo_pipeline.store import FaceDataset
    from nemo_pipeline.store.verify import label_findings

    if force and not replace:
        raise click.UsageError("--force goes with --replace.")
    files = FaceDataset(data, check=False).videos["file"]
    matched = relabel(data, read_labels(file, files), replace=replace, force=force)
    after = FaceDataset(data, check=False)
    describe(data)
    usable = after.usable
    aged = [i for i in usable if after.videos["age"][i] == after.videos["age"][i]]
    subjects = {after.videos["subject"][i] for i in aged} - {""}
    if as_json:
        print_json(
            {
                "file": after.path,
                "labelled_videos": len(matched.labels),
                "usable_videos": len(usable),
                "usable_videos_with_age": len(aged),
                "subjects": len(subjects),
                "videos_without_labels": matched.unlabelled,
                "labels_without_video": matched.unused,
                "ambiguous_labels": matched.ambiguous,
                "similar_names": matched.similar,
                "notes": matched.notes,
                "warnings": [f.text for f in label_findings(after) if f.level != "note"],
            }
        )
        return
    say(
        f"{after.path}: labels for {pluralize(len(matched.labels), 'video')} taken; now {len(aged)} of "
        f"{pluralize(len(usable), 'usable video')} have an age ({pluralize(len(subjects), 'subject')})."
    )
    report_labels(matched, after.path)
