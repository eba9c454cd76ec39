"""The report of a prepared file: what it says of each video, and that names are text in it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_pipeline.errors import OutputError
from nemo_pipeline.marks import Mark
from nemo_pipeline.stages.headframe import METHODS
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.store.marked import MarkedFaces
from nemo_pipeline.store.schema import FRAME_FIELDS
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.view.page_tools import json_for_html
from nemo_pipeline.view.quality_flags import CODES, reasons
from nemo_pipeline.view.report import write_report
from nemo_pipeline.view.report_data import MOST_POINTS, read_report, runs
from tests.support.smiling import HOSTILE, smiling, smiling_file


class Page(HTMLParser):
    """Tags with their attributes, text outside of scripts, and what is in scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: dict[str, str] = {}
        self.style = ""
        self._inside, self._id = "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside, self._id = tag, dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[self._id] = data
        elif self._inside == "style":
            self.style = data
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FaceDataset, Path]:
    folder = tmp_path_factory.mktemp("report")
    data = FaceDataset(smiling_file(folder))
    return data, write_report(data, folder / "report.html")


def test_names_are_text(made):
    data, path = made
    page = Page(path.read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.tags}, "pictures are put in when a video is opened"
    assert sorted(page.scripts) == sorted(["", "rows", "limits", *(f"d{i}" for i in data.rows)])
    for name in HOSTILE:
        assert escape_controls(name) in page.text
    rows = json.loads(page.scripts["rows"])
    assert [row["v"][0] for row in rows] == [escape_controls(name) for name in data.videos["id"]]
    assert "caf\\xe9" in page.text and "\u202e" not in path.read_text(encoding="utf-8")


def test_nothing_may_load_or_run_but_what_is_in_the_page(made):
    page = Page(made[1].read_text(encoding="utf-8"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for text in (page.style, page.scripts[""]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert not {"src", "style"} & set(attributes), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#videos") == "#videos"


def test_the_details_are_the_data(made):
    data, path = made
    page = Page(path.read_text(encoding="utf-8"))
    details = {data.videos["id"][i]: json.loads(page.scripts[f"d{i}"]) for i in data.rows}
    good = details["$a^^b$"]
    assert good["n"] == 60 and good["frames"] == [[1, 60]] and good["gaps"] == [] and good["why"] == []
    np.testing.assert_allclose(good["t"], np.arange(60) / 25, atol=1e-3)
    assert len(good["raw"]) == len(good["smooth"]) == 60
    assert good["smooth"][30] > good["smooth"][0] + 0.1
    phases = {name: (a, b) for name, a, b in good["phases"]}
    for name, (a, b) in {"onset": (0.48, 0.94), "apex": (0.94, 1.42), "offset": (1.42, 1.9)}.items():
        assert phases[name] == pytest.approx((a, b), abs=0.13), name
    assert good["pose"][0] == [4.0] * 60
    strip = Image.open(io.BytesIO(base64.b64decode(good["strip"].split(",")[1])))
    assert strip.size == (8 * 48, 48) and len(good["shown"]) == 8
    faces = data["$a^^b$"].frames
    shown = np.asarray(strip, float)
    for k, index in enumerate(np.linspace(0, 59, 8).round().astype(int)):
        assert np.abs(shown[:, 48 * k : 48 * k + 48] - faces[index]).mean() < 6
    gaps = details["gaps"]
    assert gaps["frames"] == [[1, 10], [2, 10], [1, 10], [2, 3], [1, 27]]
    assert gaps["gaps"] == [[0.4, 0.76], [1.2, 1.28]]
    assert details["cut"]["frames"] == [[1, 60], [0, 340]]
    assert "smooth" not in details["without landmarks"]
    assert details["nobody"] == {"size": ""}


def test_reasons_to_look(made):
    found = {
        video.summary.id: [reason.code for reason in video.summary.reasons] for video in read_report(made[0])
    }
    assert found["$a^^b$"] == [] and found["nobody"] == []
    assert found["gaps"] == ["interpolated"]
    assert found["turned"] == ["turned"]
    assert found["small"] == ["small"]
    assert found["many"] == ["presence", "unsharp", "faces"], "most serious first"
    assert found["cut"] == ["damaged", "part"]


def in_memory(video: dict) -> FaceTrack:
    """Its arrays, without id, labels and faces."""
    return FaceTrack({name: video[name] for name in FRAME_FIELDS if name in video}, n_decoded=60)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"pose": np.tile([30.0, 0, 0], (60, 1))}, None),
        ({"pose": np.tile([30.1, 0, 0], (60, 1))}, "turned"),
        ({"pose": np.tile([0, 0, -59.0], (60, 1))}, None),
        ({"pose": np.tile([0, 0, 178.0], (60, 1))}, "rolled"),
        ({"pose": np.tile([0, 0, -61.0], (60, 1))}, "rolled"),
        ({"eye_distance_px": np.full(60, 31.0)}, None),
        ({"eye_distance_px": np.full(60, 29.0)}, "small"),
        ({"tracked": np.arange(60) >= 6}, None),
        ({"tracked": np.arange(60) >= 7}, "interpolated"),
        ({"face_presence": np.where(np.arange(60) < 6, 0.1, 1)}, None),
        ({"face_presence": np.where(np.arange(60) < 7, 0.1, 1)}, "presence"),
        ({"face_presence": np.full(60, np.nan)}, None),
        ({"n_faces": np.where(np.arange(60) < 7, 2, 1)}, "faces"),
        ({"sharpness": np.full(60, 24.0)}, "unsharp"),
        ({"timestamps": np.arange(60) / 15}, None),
        ({"timestamps": np.arange(60) / 14}, "rate"),
        ({"timestamps": np.r_[np.arange(30), 33.5 + np.arange(30)] / 25}, "rate"),
        ({"timestamps": np.arange(60) / 150}, "short"),
    ],
)
def test_limits(changes, code):
    fields = {"tracked": np.ones(60, bool), "n_faces": np.ones(60, int), "timestamps": np.arange(60) / 25}
    fields |= smiling("one") | changes
    track = in_memory(fields)
    assert [reason.code for reason in reasons(track, 60.0, 100.0)] == ([code] if code else [])


def test_points_that_jump():
    fields = smiling("one") | {
        "tracked": np.ones(60, bool),
        "n_faces": np.ones(60, int),
        "timestamps": np.arange(60) / 25,
    }
    raw = fields["landmarks"].copy()
    raw[20] += (0, 8)  # a tenth of the eyes' distance, in one frame of 60
    track = in_memory(fields | {"landmarks_raw": raw})
    assert track.points_off[20] == pytest.approx(0.1, rel=1e-3) and track.points_off[19] == 0
    assert [reason.code for reason in reasons(track, 60.0)] == ["jumps"]
    assert next(iter(CODES)) == "damaged"


def test_a_head_that_moves_fast_is_no_fault_of_the_tracker():
    """The literal form leaves the face, and the flag says so; the default does not, and there is none."""
    fields = smiling("one") | {
        "tracked": np.ones(60, bool),
        "n_faces": np.ones(60, int),
        "timestamps": np.arange(60) / 25,
    }
    path = np.stack([40 * np.sin(np.arange(60) / 1.2), 25 * np.cos(np.arange(60) / 1.5)], axis=-1)
    raw = fields["landmarks"] + path[:, None]
    codes = {}
    for how, (function, _) in METHODS.items():
        smooth = function(raw)
        track = in_memory(fields | {"landmarks": smooth, "landmarks_raw": raw})
        codes[how] = [reason.code for reason in reasons(track, 60.0)]
        if how == "4253h":
            assert track.points_off.max() > 0.1
            (reason,) = reasons(track, 60.0)
            assert "Smoothing moved the points off the face" in reason.text and "`smooth=head`" in reason.text
    assert codes == {"head": [], "4253h": ["moved"], "none": []}


def test_without_faces(made, tmp_path):
    data, path = made
    plain = write_report(data, tmp_path / "plain.html", faces=False)
    text = plain.read_text(encoding="utf-8")
    assert "data:image" not in text and "This page shows no faces" in text
    with_faces = path.read_text(encoding="utf-8")
    assert "data:image/jpeg" in with_faces and "This page shows faces" in with_faces
    assert with_faces.count('"smooth":[') == text.count('"smooth":['), "the curves stay"
    assert plain.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600


def test_long_videos_are_thinned(tmp_path):
    data = FaceDataset(write_dataset(tmp_path / "long.h5", [smiling("long", 3000)], synthetic=True))
    path = write_report(data, tmp_path / "r.html")
    details = json.loads(Page(path.read_text()).scripts["d0"])
    assert {len(details[name]) for name in ("t", "raw", "smooth")} == {MOST_POINTS}
    assert details["t"][0] == 0 and details["t"][-1] == pytest.approx(2999 / 25)
    assert "synthetic" in path.read_text()


def test_an_empty_file_and_wrong_names(tmp_path):
    data = FaceDataset(write_dataset(tmp_path / "none.h5", []))
    assert "0 of 0 videos" in write_report(data, tmp_path / "r.html").read_text()
    with pytest.raises(OutputError, match=r"name it \.html"):
        write_report(data, tmp_path / "r.pdf")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(data, tmp_path / "nowhere" / "r.html")


def test_json_cannot_end_its_element():
    text = str(json_for_html({"a": "</script><!--&\u2028"}))
    assert not re.search(r"[<>&\u2028]", text) and json.loads(text) == {"a": "</script><!--&\u2028"}


def test_runs():
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == [] and runs(np.zeros(0, bool)) == []


def test_what_is_marked_is_shown_as_left_out(tmp_path):
    data = smiling_file(tmp_path)
    marks = [
        Mark("gaps", 5, 24, "<b>hand</b>", "kim", "2026-11-30T10:00:00Z"),
        Mark("turned", reason="wrong person"),
        Mark("nobody"),
    ]
    marked = MarkedFaces(data, marks)
    page = write_report(FaceDataset(data), tmp_path / "r.html", marked=marked).read_text()
    plain = write_report(FaceDataset(data), tmp_path / "plain.html", marked=MarkedFaces(data)).read_text()
    assert plain == write_report(FaceDataset(data), tmp_path / "other.html").read_text()
    details = [json.loads(text) for text in re.findall(r'id="d\d+">(.*?)</script>', page)]
    rows = json.loads(re.search(r'id="rows">(.*?)</script>', page)[1])
    gaps, turned, nobody = (FaceDataset(data)[name].row for name in ("gaps", "turned", "nobody"))
    assert (
        details[gaps]["marks"] == ["frames 5 to 24: <b>hand</b> (kim, 2026-11-30)"] and "<b>hand" not in page
    )
    assert details[gaps]["cut"] == [[0.2, 0.96]]
    assert details[gaps]["frames"] == [[1, 5], [3, 20], [1, 5], [2, 3], [1, 27]]
    assert rows[gaps]["s"] == "ok" and "left out by marks: 20 frames" in rows[gaps]["t"]
    assert rows[turned]["s"] == "excluded" and not rows[turned]["u"]
    assert rows[turned]["m"] == "Excluded: wrong person." and details[turned]["frames"] == [[3, 60]]
    assert rows[nobody]["s"] == "no_face" and "marks" not in details[nobody]
    assert "<dt>Left out by marks</dt><dd>1 video and 20 frames of 1 other</dd>" in page
