"""`nemo pack-model`: a trained model as one file."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from . import console
from .outputs import check_target


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False), metavar="MODEL.zip|MODEL.onnx")
@click.option(
    "--licence", default="", metavar="TEXT", help="Under which others may use it, for the card: CC-BY-4.0."
)
@click.option("--note", default="", metavar="TEXT", help="Anything else that users must know, for the card.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def command(run: Path, target: Path, licence: str, note: str, as_json: bool) -> None:
    """Write the model of a run as one file: .zip for nemo predict --model, .onnx for other programs.

    The .zip holds weights, settings, errors on unseen people (without names) and a card: what it was trained on, how
    many people of which ages, errors by decade, licence. The .onnx takes any number of frames, and needs an extra.
    """
    from siam_model.package import as_markdown, make_card, pack_model

    check_target("MODEL", target, (".zip", ".onnx"), "a model")
    if target.suffix.lower() == ".onnx":
        from siam_model.checkpoint import load_model
        from siam_model.onnx import write_onnx

        network, described = load_model(run)
        write_onnx(target, network, described)
        card = make_card(run, licence, note)
    else:
        card = pack_model(run, target, licence=licence, note=note)
    size = target.stat().st_size
    if as_json:
        console.print_json({"file": target, "bytes": size, "card": card})
        return
    for line in as_markdown(card).splitlines():
        console.out.print(console.styled(line), soft_wrap=True)
    console.say(f"wrote {target} ({size / 1e6:.1f} MB)")
    if not licence:
        console.say("The card names no licence: say with --licence what others may do with the model.")
