"""`nemo predict` over folders, with names that break naive code: lines, CSV, JSON, interval, warnings, explanations."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner, Result
from PIL import Image

from nemo_cli.main import main
from nemo_cli.predict_output import answer_for
from nemo_cli.progress import shortened
from nemo_pipeline.batch.drawings import DRAWN_MARK
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.geometry import shipped_mean_shape, shipped_triangles
from nemo_pipeline.synth.generate import render_set
from siam_model import SIAM, LoadedModel, Prediction, SIAMConfig, TrainConfig, load
from siam_model.checkpoint import ModelCard, save_model
from siam_model.data import Normalisation
from siam_model.figures.clip import clip_figure, heat_figure, weights_figure
from siam_model.interval import load_interval
from siam_model.predictions import Predictions, write_predictions
from siam_model.sums import write_sums
from tests.support.processes import PATIENCE

SIZE = 62
NAMES = ("clip[/b]<img src=x onerror=alert(1)>.mp4", "$a^^b$.mp4", "caf\udce9.mp4", "=1+2.mp4")


def make_run(
    folder: Path,
    synthetic: bool = False,
    subjects: int = 20,
    ages: tuple[float, float] = (8, 76),
    start: float = 40.0,
) -> Path:
    """A run that never learned anything: a small network, and errors of 5 years on 20 unseen people."""
    config = SIAMConfig(
        face_size=SIZE, channels=(4, 5, 6), fully_connected=9, hidden=7, attention_dim=5, temporal_dim=4
    )
    card = ModelCard(
        model=config, train=TrainConfig(temporal_stride=2), normalisation=Normalisation(100, 40),
        prep=dataclasses.replace(PrepConfig(), size=SIZE).to_dict(), mean_shape=shipped_mean_shape(),
        triangles=shipped_triangles(), ages={"min": ages[0], "median": 40.0, "max": ages[1]},
        subjects={"training": ["a"], "validation": ["b"]}, dataset={"uuid": "u", "file": "out.h5"},
        synthetic=synthetic, preset="small", seed=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SIAM(config)
    model.start_at(start)
    save_model(folder / "model", model, card)
    age = np.full(subjects, 40.0)
    codes = tuple(str(k) for k in range(subjects))
    write_predictions(
        folder / "predictions.csv", Predictions(codes, codes, np.zeros(subjects, int), age, age + 5)
    )
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/good, and a folder of clips: a face under four hostile names, one below a folder, and no videos."""
    folder = tmp_path_factory.mktemp("predict")
    make_run(folder / "runs" / "good")
    clip = (
        render_set(folder / "made", subjects=1, clips=1, seed=3, seconds=(1.0, 1.0), workers=1)
        .clips[0]
        .read_bytes()
    )
    for name in NAMES:
        path = folder / "clips" / ("clip[" if "/" in name else ".") / name.rsplit("/", 1)[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip)
    (folder / "clips" / "bad.mp4").write_text("no video")
    (folder / "clips" / "._side.mp4").write_text("")
    return folder


def nemo(*args: str | Path, cwd: Path, code: int = 0) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        done = CliRunner().invoke(main, [str(a) for a in args])
    assert done.exit_code == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def answered(place: Path) -> Result:
    """The whole folder, explained."""
    return nemo("predict", "clips", "--csv", "out.csv", "--explain", "seen", cwd=place)


def test_a_folder_gives_a_line_for_every_clip(answered):
    lines = answered.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "$a^^b$.mp4", "=1+2.mp4", "bad.mp4", "caf\\xe9.mp4", "clip[/b]<img src=x onerror=alert(1)>.mp4"
    ]  # fmt: skip
    assert lines[2].startswith("bad.mp4: no age (decode_error). The file cannot be opened")
    for line in (lines[0], lines[4]):
        assert " years, 90 % interval " in line and " frames" in line
    assert "Using the newest run: runs/good" in answered.stderr


def test_the_table(answered, place):
    path = place / "out.csv"
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["$a^^b$.mp4", "'=1+2.mp4", "bad.mp4", "caf\udce9.mp4", NAMES[0]]
    assert (
        rows["bad.mp4"]["age_predicted"] == rows["bad.mp4"]["low"] == ""
        and rows["bad.mp4"]["status"] == "decode_error"
    )
    for name, row in rows.items():
        if name != "bad.mp4":
            age = float(row["age_predicted"])
            assert (float(row["low"]), float(row["high"])) == pytest.approx((age - 5, age + 5))
            assert row["level"] == "0.9" and row["synthetic"] == "0" and int(row["frames_used"]) > 20


def test_what_was_seen(answered, place):
    seen = place / "seen"
    assert seen.stat().st_mode & 0o777 == 0o700
    names = sorted(path.name for path in seen.glob("[!.]*"))
    assert len(names) == 12 and {n.split(".", 1)[1] for n in names} >= {
        "attention.png",
        "weights.png",
        "attention.mp4",
    }
    assert {"$a^^b$.attention.mp4", "=1+2.weights.png"} <= set(names)
    assert not any(set("<>/\udce9") & set(name) for name in names)
    for path in seen.iterdir():  # the mark too
        assert path.stat().st_mode & 0o777 == 0o600
        if path.suffix == ".png":
            assert Image.open(path).width > 600
    with (
        av.open(str(place / "clips" / "$a^^b$.mp4")) as clip,
        av.open(str(seen / "$a^^b$.attention.mp4")) as drawn,
    ):
        times = [[float(f.time) for f in file.decode(video=0)] for file in (clip, drawn)]
    np.testing.assert_allclose(times[1], np.array(times[0]) - times[0][0], atol=1e-4)


def test_one_object(place):
    done = nemo("predict", "clips/$a^^b$.mp4", "clips/bad.mp4", "--json", "--interval", "0.5", cwd=place)
    values = json.loads(done.stdout)
    assert values["interval"] == {"level": 0.5, "subjects": 20, "note": ""}
    good, bad = values["clips"]
    age = good["age_predicted"]
    assert good["interval"] == pytest.approx([age - 5, age + 5]) and good["doubts"] == []
    assert bad["age_predicted"] is None and bad["interval"] is None and bad["message"]
    assert len(good["temporal_weights"]) == good["frames_used"]


def test_exit_codes(place):
    nemo("predict", "clips/bad.mp4", cwd=place, code=1)
    nemo("predict", "clips/bad.mp4", "clips/$a^^b$.mp4", "--strict", cwd=place, code=1)
    for words, said in (
        (["clips", "--interval", "90"], "--interval"),
        (["clips", "--csv", "nowhere/out.csv"], "nowhere does not exist"),
    ):
        assert said in nemo("predict", *words, cwd=place, code=2).stderr
    (place / "taken").write_text("")
    assert "for --explain" in nemo("predict", "clips", "--explain", "taken/x", cwd=place, code=1).stderr
    assert "There is no video" in nemo("predict", "runs", cwd=place, code=1).stderr


def test_a_model_that_is_broken_gives_no_age(place, tmp_path):
    clip = place / "clips" / NAMES[1]
    make_run(tmp_path / "broken", start=float("nan"))
    done = nemo("predict", clip, "--model", "broken", "--explain", "seen", "--json", cwd=tmp_path, code=1)
    assert not done.stdout and "not finite numbers" in " ".join(done.stderr.split())
    assert not list((tmp_path / "seen").glob("*.png"))


def test_nothing_of_ones_own_is_written_over_or_taken_for_a_clip(place, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes((place / "clips" / NAMES[1]).read_bytes())
    (tmp_path / "labels.csv").write_text("video,age\na.mp4,30\n")
    words = ("predict", "clips", "--model", place / "runs" / "good")
    done = nemo(*words, "--csv", "labels.csv", cwd=tmp_path, code=2)
    assert "is not a table of `nemo predict`" in done.stderr
    assert (tmp_path / "labels.csv").read_text() == "video,age\na.mp4,30\n"
    assert "holds recordings" in nemo(*words, "--explain", "clips", cwd=tmp_path, code=1).stderr
    for _ in range(2):  # its own table is written again
        nemo(*words, "--csv", "ages.csv", cwd=tmp_path)


def test_precision(place):
    """Half precision moves an age little; what a processor lacks is refused."""
    ages = []
    for precision in ("32", "bf16-mixed"):
        done = nemo("predict", "clips/$a^^b$.mp4", "--quiet", "--precision", precision, cwd=place)
        ages.append(float(done.stdout.split(": ")[1].split()[0]))
    assert ages[0] == pytest.approx(ages[1], abs=0.2)
    assert "needs a GPU" in nemo("predict", "clips", "--precision", "16-mixed", cwd=place, code=1).stderr


def test_quiet(place):
    done = nemo("predict", "clips/$a^^b$.mp4", "--quiet", "--csv", "q.csv", cwd=place)
    assert done.stderr == "" and done.stdout.startswith("$a^^b$.mp4: ")


def test_an_age_below_zero_is_shown_as_zero_and_kept_in_the_table(place):
    make_run(place / "low", start=-4.0)
    words = ("predict", "clips/$a^^b$.mp4", "-m", "low")
    done = nemo(*words, "--csv", "low.csv", cwd=place)
    assert done.stdout.startswith(
        "$a^^b$.mp4: 0.0 years (outside the ages that the model was trained on, 8 to 76"
    )
    with (place / "low.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["age_predicted"]) < -0.5 and "outside the ages" in row["note"]
    (line,) = json.loads(nemo(*words, "--json", cwd=place).stdout)["clips"]
    assert line["age_predicted"] == float(row["age_predicted"])


def test_a_table_keeps_the_rows_of_other_clips(place):
    words = ("predict", "--csv", "both.csv", "-m", "runs/good")
    nemo(*words, "clips/$a^^b$.mp4", "clips/bad.mp4", cwd=place)
    make_run(place / "second", start=50.0)
    done = nemo(*words[:3], "-m", "second", "clips/$a^^b$.mp4", cwd=place)
    assert "both.csv keeps its 1 row of other clips." in done.stderr
    with (place / "both.csv").open(newline="") as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["bad", "$a^^b$"] and rows["$a^^b$"]["file"] == "$a^^b$.mp4"
    assert [row["model"] for row in rows.values()] == ["runs/good", "second"]
    # The same names as in the predictions of a run: the tables can be merged.
    with (place / "second" / "predictions.csv").open(newline="") as file:
        assert {"video", "age_true", "age_predicted"} <= set(csv.DictReader(file).fieldnames or ())
    assert {"video", "file", "age_predicted"} <= set(rows["bad"])


def test_clips_of_the_training_get_no_interval(place):
    clip = place / "clips" / "$a^^b$.mp4"
    run = make_run(place / "knows")
    card = json.loads((run / "model" / "config.json").read_text())
    card["videos"] = ["0" * 64, hashlib.sha256(clip.read_bytes()).hexdigest()]
    (run / "model" / "config.json").write_text(json.dumps(card))
    write_sums(run / "model")
    other = place / "other.mp4"
    other.write_bytes(clip.read_bytes() + b"\0" * 8)  # another file, the same pictures
    done = nemo("predict", clip, other, "-m", "knows", "--csv", "knows.csv", cwd=place)
    first, second = done.stdout.splitlines()
    assert "trained on this very clip" in first and "90 % interval" not in first
    assert "trained on" not in second and "90 % interval" in second
    with (place / "knows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["low"] != "" for row in rows] == [False, True] and "trained on" in rows[0]["note"]


def test_a_useless_model_is_said_to_be_one(place):
    words = ("predict", "clips/$a^^b$.mp4", "-m", "useless")
    run = make_run(place / "useless")
    (run / "baselines").mkdir()
    codes = tuple(str(k) for k in range(20))
    for error, sentence in (
        (20.0, "Better than always guessing"),
        (2.0, "Warning: No better than always guessing"),
    ):
        median = Predictions(codes, codes, np.zeros(20, int), np.full(20, 40.0), np.full(20, 40 + error))
        write_predictions(run / "baselines" / "median.csv", median)
        done = nemo(*words, cwd=place)
        assert done.stderr.startswith(sentence) and "of 20 unseen subjects" in done.stderr
        assert json.loads(nemo(*words, "--json", cwd=place).stdout)["verdict"]["median_mae"] == error


def test_too_few_people_for_an_interval(place):
    make_run(place / "few", subjects=8)
    done = nemo("predict", "clips/$a^^b$.mp4", "-m", "few", cwd=place)
    assert (
        "No 90 % interval: the run predicted only 8 unseen subjects, and at least 9 are needed."
        in " ".join(done.stderr.split())
    )
    assert "interval" not in done.stdout
    assert (
        "80 % interval"
        in nemo("predict", "clips/$a^^b$.mp4", "-m", "few", "--interval", "0.8", cwd=place).stdout
    )


def test_the_mean_of_folds(place):
    run, clip = place / "folded", "clips/$a^^b$.mp4"
    make_run(run)
    assert (
        "holds no models of folds" in nemo("predict", clip, "-m", run, "--ensemble", cwd=place, code=1).stderr
    )
    ages = []
    for fold, start in enumerate((30.0, 50.0)):
        make_run(run / "folds" / f"{fold:02d}", start=start)
        line = json.loads(
            nemo("predict", clip, "-m", run / "folds" / f"{fold:02d}", "--json", cwd=place).stdout
        )
        ages.append(line["clips"][0]["age_predicted"])
    answer = json.loads(
        nemo("predict", clip, "-m", run, "--ensemble", "--json", "--explain", "two", cwd=place).stdout
    )["clips"][0]
    assert abs(ages[0] - ages[1]) > 15 and answer["age_predicted"] == pytest.approx(np.mean(ages), abs=1e-3)
    assert answer["interval"] == pytest.approx([answer["age_predicted"] - 5, answer["age_predicted"] + 5])
    assert len(list((place / "two").glob("[!.]*"))) == 3


def test_warnings(place):
    """Outside the ages of the training; a track that is short, small, full of gaps; a model that runs out of memory."""
    from nemo_cli.faces import clip_faces
    from nemo_pipeline.datatypes import VideoFile

    model = load(place / "runs" / "good")
    interval = load_interval(place / "runs" / "good", 0.9)
    row = next(clip_faces([VideoFile(place / "clips" / "$a^^b$.mp4", "a", "a.mp4")], model))
    good = answer_for(row, model, interval)
    assert good.doubts == () and good.note == ""
    old = LoadedModel(
        model.network, dataclasses.replace(model.card, ages={"min": 60.0, "median": 70.0, "max": 80.0})
    )
    assert answer_for(row, old, interval).note == "outside the ages that the model was trained on, 60 to 80"
    length = 20
    arrays = {name: values[:length] for name, values in row.arrays.items()}
    arrays |= {
        "tracked": np.arange(length) >= 5,
        "eye_distance_px": np.full(length, 9.0),
        "face_presence": np.full(length, 0.2),
    }
    poor = dataclasses.replace(row, arrays=arrays, n_decoded=length)
    assert [d.code for d in answer_for(poor, model, interval).doubts] == [
        "interpolated",
        "presence",
        "small",
        "short",
    ]

    class Full(LoadedModel):
        def predict(self, frames: np.ndarray) -> Prediction:
            raise RuntimeError("out of memory")

    failed = answer_for(row, Full(model.network, model.card), interval)
    assert failed.age is None and failed.status == "crashed" and "out of memory" in failed.message


def test_a_prediction_does_not_load_the_video_side(place):
    code = (
        "import sys; from nemo_cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "found = {'mediapipe', 'dask', 'cv2', 'av'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    words = ["predict", "clips/$a^^b$.mp4", "--explain", "light", "--json", "--csv", "light.csv"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=place, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(place, tmp_path, number):
    """What was done is in the table; no process and no face is left behind."""
    (tmp_path / "clips").mkdir()
    for name in ("$a^^b$", *(f"later{k:02d}" for k in range(40))):  # so many that it cannot be through
        shutil.copy(place / "clips" / "$a^^b$.mp4", tmp_path / "clips" / f"{name}.mp4")
    words = [
        "predict",
        str(tmp_path / "clips"),
        "--csv",
        str(tmp_path / "out.csv"),
        "--explain",
        str(tmp_path / "seen"),
    ]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "nemo_cli.main", *words],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"$a^^b$.mp4: ")
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and b"Stopped after" in said and b"Traceback" not in said
    assert list(temporary.iterdir()) == []
    assert [path.name for path in (tmp_path / "seen").glob(".*")] == [DRAWN_MARK]
    if b"Stopped after 0" not in said:
        assert "$a^^b$.mp4" in (tmp_path / "out.csv").read_text(errors="surrogateescape")


@pytest.mark.parametrize("length", [1, 2, 30])
@pytest.mark.parametrize("spatial", [True, False])
def test_figures_of_any_length(length, spatial):
    rng = np.random.default_rng(length)
    weights = rng.random(length)
    maps = rng.random((length, 4, 4)).astype(np.float32) if spatial else None
    prediction = Prediction(40.0, weights / weights.sum(), maps)
    frames = rng.integers(0, 256, (length, SIZE, SIZE), dtype=np.uint8)
    times, config = np.arange(length) / 25 + 3, SIAMConfig(face_size=SIZE)
    what = (times, "$a^^b$ " + "long" * 40, "Doubtful. " * 20)
    assert (heat_figure(frames, prediction, config, *what) is None) == (not spatial)
    for figure in (clip_figure(frames, prediction, config, *what), weights_figure(frames, prediction, *what)):
        top = times[np.argmax(weights)]
        said = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert f"largest, {top:.2f} s" in said and f"{top:.2f} s" in said, "the largest is a key frame"


def test_shortened():
    assert shortened("abc", 3) == "abc" and shortened("abcdefghij", 5) == "ab…ij"


def test_a_photo_and_a_folder_of_photos_have_an_age(place, tmp_path):
    face = Image.fromarray(skimage.data.astronaut()[:220, 110:330])
    (tmp_path / "photos").mkdir()
    face.save(tmp_path / "photos" / "a.jpg")
    face.save(tmp_path / "photo.png")
    words = ["--model", str(place / "runs" / "good"), "--json", "--explain", str(tmp_path / "seen")]
    done = nemo("predict", str(tmp_path / "photo.png"), str(tmp_path / "photos"), *words, cwd=tmp_path)
    ages = [clip["age_predicted"] for clip in json.loads(done.stdout)["clips"]]
    assert len(ages) == 2 and all(age is not None for age in ages)
    assert "It is short" not in done.stderr and "could not be drawn" not in done.stderr
    assert (tmp_path / "seen" / "photo.attention.png").stat().st_size > 1000
