"""What the file says of pictures that are not displayed as they are stored."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline import prep_video
from nemo_pipeline.batch.landmark_files import export_landmarks
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.verify import verify
from tests.support.clips import acted, person, sway, write_clip
from tests.support.hdr import HLG, write_hdr
from tests.support.runs import run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips: pixels of 2:1, whose size changes in the middle, and HLG."""
    folder = tmp_path_factory.mktemp("pictures")
    square = acted(16, (240, 200), lambda k: [(person(), person().placed(120 + sway(k)[0], 85, 55))])
    narrow = [np.ascontiguousarray(p[:, ::2]) for p in square]
    parts = [narrow[:8], [p[::2, ::2] for p in narrow[8:]]]
    written = [write_clip(folder / f"{k}.h264", p, aspect=Fraction(2)) for k, p in enumerate(parts)]
    (folder / "narrow.h264").write_bytes(b"".join(path.read_bytes() for path in written))
    write_hdr(folder / "phone.mkv", square[:8], HLG)
    output = folder / "out.h5"
    run([folder / "narrow.h264", folder / "phone.mkv"], output)
    return output


def test_the_columns(prepared: Path) -> None:
    data = FaceDataset(prepared)
    narrow, phone = data["narrow"], data["phone"]
    assert (narrow.status, narrow.length, narrow.width, narrow.height) == ("ok", 16, 240, 200)
    assert (narrow.stored_width, narrow.stored_height, narrow.pixel_aspect) == (120, 200, "2:1")
    assert "120x200 in 8 frames, then 60x100 in 8 frames" in narrow.message
    assert narrow.picture == "240 × 200 (120 × 200 at 2:1)"
    assert (phone.pixel_aspect, phone.picture) == ("1:1", "240 × 200")
    assert phone.transfer == "arib-std-b67 to bt709 (203 nits)"
    assert narrow.transfer == ""
    assert [finding.where for finding in verify(prepared)] == ["labels"]  # there are none


def test_landmarks_written_for_others_fit_the_stored_picture(prepared: Path, tmp_path: Path) -> None:
    """And come back as they were."""
    data = FaceDataset(prepared)
    (table,) = export_landmarks(data, tmp_path / "narrow.csv", only="narrow")
    config = PrepConfig(landmarks_source="openface", mesh=False)
    again = prep_video(prepared.parent / "narrow.h264", config, landmarks=table)
    # Frames of another size than the first one's are the exception: the file holds one stored size.
    np.testing.assert_allclose(again.landmarks_raw[:8], data["narrow"].landmarks_raw[:8], atol=1e-3)
