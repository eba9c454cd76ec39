"""Copies with covered faces, judged by what did not make them: OpenCV's cascades, packets, bytes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from nemo_pipeline import PrepConfig
from nemo_pipeline.batch.anonymise import INDEX, anonymise
from nemo_pipeline.errors import OutputError
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame, Region
from nemo_pipeline.stages.in_view import Cover, Places, Sighting, seen_under
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.files import leftovers
from nemo_pipeline.view import anonymise as view
from nemo_pipeline.view.anonymise import anonymise_video, around, hide
from tests.support.clips import acted, other_person, person, sway, timestamps_of, write_clip
from tests.support.commands import invoke
from tests.support.prepared import prepared_here

SIZE = (321, 121)  # odd: the copy has a row and a column more
#: Frames in which the second person is there, who leaves and comes back; the first one always is.
THERE = [3, 4, 5, 8, 9, 10]
#: Hundredths of a second: a start of 0.5 s, and steps of many lengths.
TIMES = [50, 53, 57, 60, 63, 68, 70, 73, 77, 80, 85, 90]
SECRETS = (b"Jane Doe", b"+52.0", b"Participant 7")


def pictures() -> list[np.ndarray]:
    def play(k: int):
        dx, dy = sway(k, 3.0)
        people = [(person(), person().placed(60 + dx, 50 + dy, 32, 4 * np.sin(k / 4)))]
        if k in THERE:
            people.append((other_person(), other_person().placed(258 - dx, 47, 30)))
        return people

    return acted(12, SIZE, play)


def add_sound_and_names(silent: Path, path: Path) -> None:
    """The same pictures with a sound, a title, a name and a place."""
    with av.open(str(silent)) as source, av.open(str(path), "w") as out:
        out.metadata.update(
            {"title": "Participant 7", "artist": "Jane Doe", "location": "+52.0116+004.3571/"}
        )
        video = out.add_stream_from_template(source.streams.video[0])
        video.metadata["handler_name"] = "Jane Doe's phone"
        audio = out.add_stream("aac", rate=16000, layout="mono")
        for k in range(24):
            t = (np.arange(1024) + 1024 * k) / 16000
            tone = av.AudioFrame.from_ndarray(
                np.sin(2000 * t + 1500 * t**2)[None].astype(np.float32) / 2, format="fltp", layout="mono"
            )
            tone.sample_rate, tone.pts, tone.time_base = 16000, 1024 * k, Fraction(1, 16000)
            out.mux(audio.encode(tone))
        out.mux(audio.encode())
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> FaceDataset:
    """A prepared file of one recording of two people, with all that a recording says of itself."""
    folder = tmp_path_factory.mktemp("recordings")
    silent = write_clip(
        folder.parent / f"{folder.name}-silent.mkv", pictures(), pixel_format="yuv444p", times=TIMES,
        time_base=Fraction(1, 100),
    )  # fmt: skip
    add_sound_and_names(silent, folder / "two.mov")
    assert all(secret in (folder / "two.mov").read_bytes() for secret in SECRETS)
    return prepared_here(folder, folder / "out.h5", PrepConfig(size=48, follow="largest"))


@pytest.fixture(scope="module")
def engine():
    return load_engine("litert")


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def found_by_cascades(picture: np.ndarray) -> int:
    """Faces that OpenCV's cascades find, none of which nemo uses."""
    gray = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    names = ("frontalface_default", "frontalface_alt2", "profileface")
    return sum(
        len(cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml").detectMultiScale(gray, 1.1, 4))
        for name in names
    )  # fmt: skip


def test_every_face_is_covered_in_all_frames_and_nothing_else_is_taken_over(data, engine, tmp_path):
    rows, source = [data[row] for row in data.rows], data.path.parent / "two.mov"
    done = anonymise_video(source, tmp_path / "copy.mp4", rows, engine)
    assert (done.frames, done.sound) == (12, False) and done.faces >= 2
    assert (tmp_path / "copy.mp4").stat().st_mode & 0o777 == 0o600

    copies, originals = decoded(tmp_path / "copy.mp4"), pictures()
    assert len(copies) == 12 and copies[0].shape == (122, 322, 3)
    assert np.abs(np.array(timestamps_of(tmp_path / "copy.mp4")) - np.array(TIMES) / 100).max() < 1e-4
    assert min(found_by_cascades(picture) for picture in originals) >= 1
    assert max(found_by_cascades(picture) for picture in copies) == 0
    for k, (copy, original) in enumerate(zip(copies, originals, strict=True)):
        change = np.abs(copy[:121, :321].astype(int) - original).mean(axis=2)
        assert np.median(change[30:80, 40:80]) > 15  # the first face
        if k in THERE:
            assert np.median(change[30:75, 240:275]) > 12
        assert np.median(change[:, 152:160]) < 8  # between them, but for two encodings

    content = (tmp_path / "copy.mp4").read_bytes()
    assert not any(secret in content for secret in SECRETS)
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert set(container.metadata) <= {
            "major_brand",
            "minor_version",
            "compatible_brands",
            "encoder",
            "comment",
        }


def test_a_wire_frame_and_sound_that_is_kept_and_lies_where_it_was(data, engine, tmp_path):
    rows, source = [data[row] for row in data.rows], data.path.parent / "two.mov"
    assert anonymise_video(source, tmp_path / "copy.mp4", rows, engine, look="wireframe", sound=True).sound
    content = (tmp_path / "copy.mp4").read_bytes()
    assert not any(secret in content for secret in SECRETS)
    copies = decoded(tmp_path / "copy.mp4")
    assert max(found_by_cascades(picture) for picture in copies) == 0
    assert copies[0][30:80, 40:80].std() > 5  # lines, not one colour
    heard = []
    for path in (source, tmp_path / "copy.mp4"):
        with av.open(str(path)) as container:
            frames = list(container.decode(audio=0))
        line = np.zeros(32000)
        for frame in frames:
            start = round(frame.time * 16000)
            line[start : start + frame.samples] = frame.to_ndarray()[0]
        heard.append(line[2000:20000])
    lag = int(np.correlate(heard[0], heard[1][4000:12000]).argmax()) - 4000
    assert abs(lag) <= 16  # a millisecond
    assert np.abs(heard[0]).mean() == pytest.approx(np.abs(heard[1]).mean(), rel=0.1)


def test_a_cover_goes_on_where_nobody_is_seen_for_a_moment():
    times = np.arange(100) / 10
    seen: list[list[Sighting]] = [[] for _ in times]
    for k in (30, 31, 40, 41):  # from x = 100 to x = 140 in a second
        seen[k] = [Sighting(Region(100.0 + 4 * (k - 30), 50.0, 40.0))]
    seen[41].append(Sighting(Region(700.0, 50.0, 40.0)))  # somebody else
    places = Places(times)
    places.add(seen)
    assert len(places) == 2
    covered = [k for k in range(100) if any(c.track == 0 for c in places.covers(k))]
    assert covered == list(range(20, 52))  # and a second before and after
    for k in range(31, 41):
        (cover,) = (c for c in places.covers(k) if c.track == 0)
        assert cover.face.cx == pytest.approx(100 + 4 * (k - 30), abs=1.5)  # smoothed over neighbours
        assert cover.height > 0.5 * 40 / 1.5 and cover.holds(Region(100.0 + 4 * (k - 30), 50.0, 40.0))
    first, middle = places.covers(30)[0], places.covers(35)[0]
    assert first.height < middle.height < 1.2 * first.height  # the longer nobody is seen, the more is covered
    assert places.covers(20)[0].face.cx == pytest.approx(100)


def sightings(count: int, sure: int, confirmed: int, score: float) -> list[list[Sighting]]:
    """In so many frames, in the first ones of which the detector is sure, or the landmark network sees a face."""
    return [[Sighting(Region(50.0, 50.0, 40.0), k < sure, k < confirmed, score)] for k in range(count)]


@pytest.mark.parametrize(
    ("seen", "covered"),
    [
        (sightings(40, 1, 0, 0.75), False),  # a cup that looks like a face now and then
        (sightings(40, 0, 10, 0.6), False),
        (sightings(4, 0, 4, 0.6), False),
        (sightings(40, 10, 0, 0.75), True),  # somebody in profile, or smeared by motion
        (sightings(40, 0, 30, 0.6), True),  # seen dimly, but all the time
        (sightings(60, 0, 0, 0.55), True),  # never for certain, but in every frame of two seconds
        ([*sightings(25, 0, 0, 0.55), *([[]] * 10), *sightings(25, 0, 0, 0.55)], False),
        (sightings(1, 1, 1, 0.9), True),  # in a single frame, but clearly
    ],
)
def test_a_doubtful_detection_now_and_then_is_no_face(seen, covered):
    places = Places(np.arange(60) / 25)
    places.add([*seen, *([[]] * (60 - len(seen)))])
    assert [bool(places.covers(0)), len(places)] == [covered, covered]
    assert all(cover.height < 40 for frame in range(60) for cover in places.covers(frame))


def test_a_doubtful_detection_continues_a_face_only_where_it_was():
    times = np.arange(30) / 25
    seen = [[Sighting(Region(50.0, 50.0, 40.0), k < 10, k < 10)] for k in range(20)]
    seen += [[Sighting(Region(90.0, 50.0, 40.0), False, False)] for _ in range(10)]
    places = Places(times)
    places.add(seen)
    assert [cover.x for frame in range(30) for cover in places.covers(frame)] == pytest.approx([50] * 30)


def test_a_face_that_shows_is_found_again(engine):
    """The check itself: it must see an open face, at the place of a cover and elsewhere, and none that is hidden."""
    picture = pictures()[5]
    places = Places([0.0])
    places.add([[Sighting(Region(60.0, 57.0, 107.0))]])
    covers = places.covers(0)
    found, elsewhere = seen_under(engine, picture, covers)
    assert found == {0} and any(abs(face.region.cx - 258) < 8 for face in elsewhere)
    for x in (60, 258):
        cover = Cover(x, 50, 35, 45, Region(x, 57, 107), 0)
        hide(picture, cover, around(picture, cover), 50, 0)
    assert seen_under(engine, picture, covers) == (set(), [])


def test_what_is_found_again_is_covered_more_or_there_is_no_copy(data, engine, tmp_path, monkeypatch):
    rows, source = [data[row] for row in data.rows], data.path.parent / "two.mov"
    weak = (0.0, 0.0, 1, 0.02)  # hides nothing
    monkeypatch.setattr(view, "STEPS", {"blur": (weak, view.STEPS["blur"][1])})
    done = anonymise_video(source, tmp_path / "copy.mp4", rows, engine)
    assert done.rounds == 2 and done.stronger >= 2
    assert max(found_by_cascades(picture) for picture in decoded(tmp_path / "copy.mp4")) == 0
    monkeypatch.setattr(view, "STEPS", {"blur": (weak, weak)})
    with pytest.raises(OutputError, match=r"has no copy\. In 12 frames of it the detector finds a face"):
        anonymise_video(source, tmp_path / "none.mp4", rows, engine)
    assert not (tmp_path / "none.mp4").exists() and not leftovers(tmp_path / "none.mp4")


def test_a_cover_is_stronger_only_around_the_frames_in_which_a_face_was_found():
    times = np.arange(50) / 32
    steps: dict[int, np.ndarray] = {}
    assert view._strengthen(steps, {3: [20, 22]}, times, 3)
    assert steps[3].nonzero()[0].tolist() == list(range(12, 31)) and steps[3].max() == 1
    assert view._strengthen(steps, {3: [20]}, times, 3) and steps[3][20] == 2 and steps[3][0] == 0
    assert not view._strengthen(steps, {3: [20]}, times, 3) and steps[3].max() == 2


def test_nothing_of_a_face_is_in_its_cover():
    """Pictures that differ under a cover alone are equal when it is drawn, and outside of it nothing changes."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    cover = Cover(50, 40, 20, 30, Region(50, 43, 57, 0.3), 0)
    rows, columns = np.ogrid[:80, :100]
    inside = cover.beyond(columns, rows) <= 1
    assert (
        inside[40, 50 + 18] and inside[40 - 27, 50 + 7] and not inside[40 - 27, 50 - 7]
    )  # turned by 0.3 radians
    other = np.where(inside[..., None], rng.integers(0, 256, one.shape, dtype=np.uint8), one)
    hidden = []
    for picture in (one, other):
        colour = around(picture, cover)
        hidden.append(picture.copy())
        hide(hidden[-1], cover, colour, 35, 0)
        assert np.array_equal(
            hidden[-1][cover.beyond(columns, rows) > 1.08], one[cover.beyond(columns, rows) > 1.08]
        )
    assert np.array_equal(hidden[0], hidden[1]) and hidden[0][inside].std() > 20  # bands
    blurred = one.copy()
    hide(blurred, cover, around(one, cover), 35, 0.35)
    assert 0 < np.abs(blurred[inside].astype(int) - hidden[0][inside]).max() < 0.35 * 128
    hide(one, Cover(-500, 40, 20, 30, Region(-500, 43, 57), 0), np.zeros(3), 35, 0.35)  # next to the picture
    everything = Cover(50, 40, 500, 500, Region(50, 40, 700), 0)
    assert around(one, everything) == pytest.approx(one.mean(axis=(0, 1)))


def test_recordings_that_are_gone_or_changed_do_not_stop_the_others(clips, first, tmp_path):
    _, output = first
    here = tmp_path / "here"
    here.mkdir()
    for name in ("clip0.mp4", "clip1.mp4"):
        (here / name).write_bytes((clips / name).read_bytes())
    content = bytearray((here / "clip1.mp4").read_bytes())
    content[-1] ^= 1
    (here / "clip1.mp4").write_bytes(content)
    folder = tmp_path / "shared"
    said = invoke("export", output, folder, "--format", "video", "--anonymise", "--recordings", here).stderr
    assert "clip0: 1 face covered in 10 frames; searched again: none found in 10" in said
    assert "clip1.mp4 has other content than the video of this name that was prepared" in said
    assert "clip2.mp4: The file is not there" in said
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [INDEX, "clip0.mp4"]
    before = (folder / "clip0.mp4").stat().st_mtime_ns
    again = anonymise(FaceDataset(output), folder, recordings=[str(here)])
    assert [bool(copy.copy) for copy in again] == [True, False, False]
    assert (folder / "clip0.mp4").stat().st_mtime_ns == before  # kept
    invoke(
        "export", output, tmp_path / "b", "--format", "video", "--anonymise", "--recordings", here, "--video", "clip2",
        code=1,
    )  # fmt: skip


def test_the_options_that_do_not_go_together_are_refused(first, tmp_path):
    _, output = first
    for words in (["--anonymise"], ["--format", "video", "--cover", "blur"], ["--keep-sound"]):
        assert "needs --format video" in invoke("export", output, tmp_path / "x", *words, code=2).stderr
    assert not (tmp_path / "x").exists()


def test_frames_are_painted_in_their_own_pixels(data):
    """Upright and square, as `Frame.rgb` has them: outside of covers nothing moves."""
    places = Places([0.0])
    places.add([[]])
    picture = pictures()[0]
    drawn = view._Painter(places, {}, "blur", data[data.rows[0]])(Frame.from_rgb(picture))
    assert np.abs(drawn[:121, :321].astype(int) - picture).max() <= 3
