"""The contact sheet: every video has its row, any name and any number of them, and nobody else may read it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_pipeline.errors import OutputError
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.view.drawing import AMBER, GREEN, RED, canvas, draw_text, fit_text, text_width, wrap_text
from nemo_pipeline.view.preview import contact_sheet

NAMES = [
    "001_deliberate_smile_2",
    "Ünïcode smile – 微笑 (1)",
    "clip[/b]",
    "$a^^b$",
    "\x1b[31mred\udcff" * 12,
    "עברית عربى",
]


def dataset(path: Path, names: list[str], size: int = 40, frames: int = 12) -> FaceDataset:
    videos = []
    for i, name in enumerate(names):
        levels = np.linspace(40, 220, frames).astype(np.uint8)
        faces = np.broadcast_to(levels[:, None, None], (frames, size, size)).copy()
        tracked = np.ones(frames, bool)
        tracked[frames // 2 :] = i != 1
        videos.append({"id": name, "frames": faces, "tracked": tracked, "age": 20.0 + i, "subject": f"s{i}"})
    failed = {"id": "nobody", "frames": np.zeros((0, size, size), np.uint8), "status": "no_face"}
    broken = failed | {
        "id": "broken",
        "status": "decode_error",
        "message": "A sentence. " * 60,
        "n_decoded": 3,
    }
    write_dataset(path, [*videos, failed | {"message": "No face was found.", "n_decoded": 1}, broken])
    return FaceDataset(path)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((picture == colour).all(axis=2).sum())


def test_one_page(tmp_path: Path) -> None:
    data = dataset(tmp_path / "faces.h5", NAMES)
    [path] = contact_sheet(data, tmp_path / "sheet.png")
    assert path.stat().st_mode & 0o777 == 0o600
    picture = np.asarray(Image.open(path))
    side = 64
    assert picture.shape[1] == 2 * 28 + 320 + 10 * 70 - 6
    # Each video's first and last face, evenly between them, and a row for those without.
    strip = picture[78 + 10 + side // 2]
    greys = [int(strip[28 + 320 + i * 70 + side // 2, 0]) for i in range(10)]
    assert greys[0] == 40 and greys[9] == 220 and all(a < b for a, b in itertools.pairwise(greys))
    assert has(picture, GREEN) > 6 * 100 and has(picture, RED) > 100
    second = picture[78 + 102 : 78 + 204]
    assert has(second, AMBER) > 5 * 200 and has(picture[78 : 78 + 100], AMBER) == 0
    assert picture.shape[0] == 78 + 6 * (64 + 20 + 18) + 2 * (58 + 18) + 28


def test_many_videos_are_several_pages(tmp_path: Path) -> None:
    data = dataset(tmp_path / "faces.h5", [f"v{i}" for i in range(9)], size=16, frames=3)
    pages = contact_sheet(data, tmp_path / "s.jpg", rows_per_page=4, columns=2)
    assert [p.name for p in pages] == ["s-01.jpg", "s-02.jpg", "s-03.jpg"]
    heights = [Image.open(p).height for p in pages]
    assert heights[0] == heights[1] > heights[2]


def test_no_videos_and_no_picture(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", [])
    data = FaceDataset(tmp_path / "a.h5")
    assert Image.open(contact_sheet(data, tmp_path / "a.png")[0]).height < 200
    for name, words in (("a.gif", r"\.png or \.jpg"), ("no/a.png", "cannot be written")):
        with pytest.raises(OutputError, match=words):
            contact_sheet(data, tmp_path / name)


@pytest.mark.parametrize("text", [*NAMES, "", "x" * 500, "word " * 200])
@pytest.mark.parametrize("width", [0, 60, 400])
def test_text_fits(text: str, width: int) -> None:
    if width:
        assert text_width(fit_text(text, width, 13, bold=True), 13, bold=True) <= width
    lines = wrap_text(text, width, 13, 3)
    assert len(lines) <= 3
    assert all(text_width(line, 13) <= max(width, text_width("…", 13)) for line in lines)


def test_every_letter_leaves_ink() -> None:
    """A sign that a font lacks is drawn with another font, never as nothing or as the same box."""
    drawn = []
    for text in ("a", "Ü", "微", "笑", "ع", "\x07"):
        image, draw = canvas(60, 30)
        draw_text(draw, (4, 22), text, 18, (0, 0, 0))
        drawn.append(np.asarray(image).tobytes())
        assert min(np.asarray(image).ravel()) < 100
    assert len(set(drawn)) >= 5
