"""A video without a face says what it shows instead."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from nemo_pipeline import prep_video
from tests.support.clips import acted, person, smooth_pictures, write_clip

SIZE = (240, 200)


def face(n: int = 8) -> list[np.ndarray]:
    return acted(n, SIZE, lambda k: [(person(), person().placed(120 + k / 4, 85, 55))])


def message(folder: Path, pictures: list[np.ndarray], **options: object) -> str:
    video = prep_video(write_clip(folder / "clip.mp4", pictures, **options))  # type: ignore[arg-type]
    assert video.status == "no_face"
    assert video.message.startswith(f"No face was found in {len(pictures)} frames")
    return video.message


@pytest.mark.parametrize(
    ("level", "what"), [(0, "black"), (5, "black"), (120, "of one gray level"), (255, "white")]
)
def test_pictures_that_show_nothing(level: int, what: str, tmp_path: Path) -> None:
    said = message(tmp_path, [np.full((200, 240, 3), level, np.uint8)] * 8)
    assert f"the picture is nearly {what} (mean level " in said
    assert abs(int(said.split("mean level ")[1].split(" ")[0]) - level) <= 2


def test_a_face_that_is_too_dark_to_see(tmp_path: Path) -> None:
    """A camera of 12 bits in a file of 16, copied to 8: a sixteenth of the levels."""
    dark = [picture // 64 for picture in face()]
    video = prep_video(write_clip(tmp_path / "clip.mp4", dark, quality="0"))
    assert video.status in ("no_face", "blank")
    if video.status == "no_face":
        assert "nearly black" in video.message


def test_nothing_like_a_face(tmp_path: Path) -> None:
    pictures = smooth_pictures(8, *SIZE)
    level = np.mean([cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).mean() for p in pictures])
    said = message(tmp_path, pictures)
    assert "nothing looks like a face" in said and "at least 12 pixels" in said
    assert abs(int(said.split("mean level ")[1].split(" ")[0]) - level) <= 3


def test_what_looks_like_a_face_is_named_with_its_size_and_score(tmp_path: Path) -> None:
    blurred = [cv2.GaussianBlur(picture, (0, 0), 4.6) for picture in face()]
    said = message(tmp_path, blurred)
    eyes = float(said.split("the largest candidate has about ")[1].split(" ")[0])
    assert eyes == pytest.approx(55, abs=12)
    score = float(said.split("and a score of ")[1].split(",")[0])
    assert 0.5 <= score < 0.78
    assert "where faces have 0.78 and more" in said


def test_damage_is_said_as_well(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", smooth_pictures(30, *SIZE), options={"g": "10"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    video = prep_video(path)
    assert video.status == "no_face"
    assert "nothing looks like a face" in video.message
    assert "Also, the file is cut off" in video.message
