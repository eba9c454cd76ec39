"""What `nemo evaluate` makes of trained runs and studies: phases, attention, what is missing and how to get it."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nemo_cli.main import load as load_command
from nemo_pipeline.errors import DataError, LeakageError, OutputError, RunError, SettingsError
from nemo_pipeline.phases import find_phases
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.pack import pack
from siam_model import load
from siam_model.evaluate import SYNTHETIC_NOTE, evaluate
from siam_model.predictions import Predictions, read_predictions, write_predictions
from siam_model.reports import paper, phases
from siam_model.reports.attention import components, examples, first_layer, spread_by_age
from siam_model.reports.inference import by_model, expressive_frame
from siam_model.reports.inputs import EvaluateRequest
from siam_model.reports.source import Run, open_data, open_run, open_source
from siam_model.run_folder import EvaluationFolder, RunFolder
from tests.support.siam_smiles import HOSTILE, METHOD, smiling_file, studied, trained

#: No pictures of faces, and no phases that are not kept: what only needs tables is much faster so.
QUICK = EvaluateRequest(quick=True, faces=False)
KINDS = ("mechanisms", "positions", "modules", "conditions")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return smiling_file(tmp_path_factory.mktemp("smiles") / "$d^^$[b].h5")


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    return trained(data, tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="module")
def studies(data, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("studies")
    return [studied(data, folder / kind, kind) for kind in KINDS]


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy to break."""
    ignored = shutil.ignore_patterns("evaluation")  # what other tests left there
    return Path(shutil.copytree(made, tmp_path / "run", ignore=ignored))


@pytest.fixture(scope="module")
def everything(made, studies, tmp_path_factory):
    return evaluate([made, *studies], tmp_path_factory.mktemp("all") / "evaluation")


def opened(run: Path) -> Run:
    source = open_source(run)
    assert isinstance(source, Run)
    return source


# ---- all of it


def test_one_run_and_a_study_of_each_kind_fill_everything(everything):
    assert everything.missing == ()
    keys = {p.key for p in everything.report.pictures} | {t.key for t in everything.report.tables}
    assert {t.number for t in everything.report.tables} >= {"Table I", "Table II", "Table III", "Table IV"}
    assert {p.number for p in everything.report.pictures} >= {f"Figure {k}" for k in range(2, 11)}
    assert {"table-by-gender", "table-by-condition", "figure-scatter"} <= keys
    for part in (*everything.report.pictures, *everything.report.tables):
        assert "SYNTHETIC" in part.caption and "videos of" in part.caption, part.key
        assert part.title and not part.title.endswith(".")
    assert all(len(p.alt) > 40 for p in everything.report.pictures)


def test_every_file_is_there_and_ones_own(everything):
    names = {f.name for f in everything.parts}
    for picture in everything.report.pictures:
        assert {f"{picture.key}.png", f"{picture.key}.svg"} <= names
    for table in everything.report.tables:
        assert {f"{table.key}.{e}" for e in ("csv", "json", "md", "tex")} <= names
    for file in (*everything.files, *everything.parts):
        assert file.is_file() and file.stat().st_mode & 0o077 == 0, file
        if file.suffix == ".png":
            image = np.asarray(Image.open(file).convert("L"))
            assert image.std() > 5 and image.shape[1] > 700
        if file.suffix == ".svg":
            text = file.read_text()
            assert "<script" not in text and "onerror" not in text
    for file in (everything.folder / "tables").glob("*.csv"):
        assert "measured on SYNTHETIC faces" in file.read_text(errors="surrogateescape"), file
    numbers = json.loads((everything.folder / "evaluation.json").read_text())
    assert {t["number"] for t in numbers["tables"]} >= {"Table I", "Table II", "Table III", "Table IV"}
    assert numbers["note"] == SYNTHETIC_NOTE and numbers["missing"] == []


def test_the_same_again_is_the_same_to_the_byte(made, tmp_path):
    first, again = (evaluate(made, tmp_path / name) for name in ("a", "b"))
    for one, two in zip((*first.files, *first.parts), (*again.files, *again.parts), strict=True):
        assert one.name == two.name
        if one.name != "report.html":  # which says when it was made
            assert one.read_bytes() == two.read_bytes(), one.name


def test_what_an_earlier_call_left_is_no_part_of_this_one(run):
    evaluate(run, request=EvaluateRequest(quick=True))
    evaluate(run, request=EvaluateRequest(quick=True, faces=False))
    left = {path.name for path in (run / "evaluation" / "figures").iterdir()}
    assert "figure-9-heat-maps.png" not in left and "figure-7-cumulative-error.png" in left


def test_study_tables_are_of_their_runs(everything, studies):
    table = next(t for t in everything.report.tables if t.number == "Table I")
    order = list(paper.MECHANISMS)
    assert len(table.groups[0].rows) == len(order)
    for name, row in zip(order, table.groups[0].rows, strict=True):
        p = read_predictions(studies[0] / name / "predictions.csv")
        assert row[1:4] == (len(p), len(set(p.subject)), pytest.approx(p.error.mean()))
    four = next(t for t in everything.report.tables if t.number == "Table IV")
    posed = next(row for row in four.groups[0].rows if "posed smile" in row[0])
    assert posed[3] == pytest.approx(
        read_predictions(studies[3] / "smile_posed" / "predictions.csv").error.mean()
    )
    theirs = next(g for g in four.groups if g.paper)
    assert [row[3:5] for row in theirs.rows] == [(6.41, 6.65)]  # not that of the disgust that is not here


def test_a_study_alone_is_evaluated_by_the_papers_variant(studies, tmp_path):
    result = evaluate(studies[2], tmp_path / "out", request=EvaluateRequest(quick=True))
    assert result.run.name == "full"
    assert {m.number for m in result.missing} >= {"Table II", "Figure 4", "Table IV"}


# ---- phases


def predicted(source: Run) -> phases.Parts:
    """Of the phases, with what `evaluate` keeps by default."""
    return phases.predict_phases(
        source, open_data(source, None), "cpu", EvaluationFolder(source.folder.evaluation).phases
    )


def test_phases_are_predicted_by_the_model_that_never_saw_the_person(run, data):
    source = opened(run)
    (run / "evaluation").mkdir()
    found = predicted(source)
    dataset, p = FaceDataset(data), source.predictions
    checked = 0
    for i, video in enumerate(p.video):
        face = dataset[video]
        cut = find_phases(face.landmarks, face.timestamps, "smile")
        if not all(cut.mask(name).any() for name in ("onset", "apex", "offset")):
            assert set(found[video]) == {"whole"}
            continue
        assert len(found[video]) == 7
        model = load(RunFolder(run).fold(int(p.fold[i])).path)
        assert p.subject[i] not in {*model.subjects["training"], *model.subjects["validation"]}
        for names in paper.PHASES:
            frames = face.frames[cut.mask(*names)]
            part = found[video]["+".join(names)]
            assert part.predicted == model.predict(frames).age
            assert part.stop - part.start == len(frames)
        checked += 1
    assert checked == len(p) - 1  # all but the one that does not smile


def test_phases_are_kept_while_they_hold(run, monkeypatch):
    (run / "evaluation").mkdir()
    predicted(opened(run))
    file = run / "evaluation" / "phases.csv"
    kept = file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    asked: list[int] = []
    true = by_model
    monkeypatch.setattr(phases, "by_model", lambda r, rows, d: asked.extend(rows) or true(r, rows, d))
    source = opened(run)
    found = predicted(source)
    assert asked == []  # nothing to do
    assert phases.read_parts(file) == found
    p = source.predictions
    other = Predictions(p.video, p.subject, p.fold, p.age, p.predicted + np.eye(len(p))[2])
    write_predictions(run / "predictions.csv", other)  # another model
    source = opened(run)
    assert phases.kept_phases(source, file) is None
    predicted(source)
    assert asked == [2]
    file.write_bytes(kept.replace(b"onset+apex,", b"onset+apex,1"))  # other frames
    asked.clear()
    write_predictions(run / "predictions.csv", p)
    source = opened(run)
    predicted(source)
    assert len(asked) == len(p) - 1
    file.write_text("video\nx\n")
    with pytest.raises(DataError, match="damaged"):
        phases.read_parts(file)


def test_quick_leaves_phases_out_unless_they_are_kept(run):
    result = evaluate(run, request=QUICK)
    assert [m.number for m in result.missing if "quick" in m.reason] == ["Table II"]
    predicted(opened(run))
    assert "Table II" in {t.number for t in evaluate(run, request=QUICK).report.tables}


# ---- stability


def test_stability_is_the_deviation_of_frames_and_of_sub_clips(run, data):
    assert "table-stability" not in {t.key for t in evaluate(run, request=QUICK).report.tables}
    result = evaluate(run, request=dataclasses.replace(QUICK, stability=True))
    (table,) = [t for t in result.report.tables if t.key == "table-stability"]
    frames, parts, whole = table.groups[0].rows
    source, dataset = opened(run), FaceDataset(data)
    p = source.predictions
    over_frames, over_parts, errors = [], [], []
    for i, video in enumerate(p.video):
        model, faces = load(RunFolder(run).fold(int(p.fold[i])).path), dataset[video].frames
        answer = model.predict(faces)
        assert np.average(answer.frame_ages, weights=answer.temporal_weights) == pytest.approx(
            answer.age, abs=1e-3
        )
        over_frames.append(np.std(answer.frame_ages, ddof=1))
        n = len(faces)
        cuts = [faces[round(k * n / 4) : round((k + 1) * n / 4)] for k in range(4)]
        ages = [model.predict(cut).age for cut in cuts]
        over_parts.append(np.std(ages, ddof=1))
        errors.append(np.mean(np.abs(np.array(ages) - p.age[i])))
    assert frames[:3] == ("frame by frame", len(p), pytest.approx(np.mean(over_frames)))
    assert parts[:3] == ("4 sub-clips", len(p), pytest.approx(np.mean(over_parts)))
    assert parts[5:] == pytest.approx((np.median(over_parts), np.percentile(over_parts, 90), np.mean(errors)))
    assert whole[-1] == pytest.approx(p.error.mean())


# ---- attention


def test_a_model_that_knows_the_person_is_not_asked(run):
    source = opened(run)
    shutil.rmtree(RunFolder(run).fold(0).path / "model")
    shutil.copytree(RunFolder(run).fold(1).path / "model", RunFolder(run).fold(0).path / "model")
    with pytest.raises(LeakageError, match="was trained on subject"):
        list(by_model(source, range(len(source.predictions)), "cpu"))
    result = evaluate(run)
    assert {"Table II", "Figure 9", "Figure 10", "Figure 5"} <= {m.number for m in result.missing}


def test_the_first_attention_layer_by_numpy(run, data):
    model, frames = load(RunFolder(run).fold(0).path), FaceDataset(data)[3].frames[:5]
    found = first_layer(model, frames)
    layer = model.network.appearance.attention
    u, c = layer.second_weight.detach().numpy()[0], layer.second_bias.item()
    # Equation 1 from here on is the attention map that the model answers, whatever the order of the frames was.
    maps = 1 / (1 + np.exp(-(found @ u.astype(np.float64) + c)))
    theirs = model.predict(frames).spatial_attention
    np.testing.assert_allclose(maps.mean(axis=0), theirs.mean(axis=0), atol=1e-5)
    assert found.shape == (5, *theirs.shape[1:], 6) and np.abs(found).max() <= 1
    parts, videos, dim = components(opened(run), open_data(opened(run), None), "cpu")
    assert dim == 6 and videos > 1 and len(parts.maps) == 3 and 0 < parts.share.sum() <= 1


def test_examples_are_spread_over_the_ages(run, data):
    source = opened(run)
    rows = spread_by_age(source, 4)
    ages, everyone = source.predictions.age[rows], np.unique(source.predictions.age)
    assert list(ages) == sorted(ages) and len({source.predictions.subject[i] for i in rows}) == 4
    assert (ages[0], ages[-1]) == (everyone[0], everyone[-1])
    assert len(spread_by_age(source, 99)) == len(set(source.predictions.subject))
    assert spread_by_age(source, 3, []) == []
    shown = examples(source, open_data(source, None), rows, "cpu")
    for row, example in zip(rows, shown, strict=True):
        assert example.video == source.predictions.video[row]
        assert example.prediction.age == source.predictions.predicted[row]
        assert 0.3 < example.frame / len(example.frames) < 0.7  # the smile is at its height in the middle
    still = FaceDataset(data)[-1]
    assert expressive_frame(still) == (len(still) - 1) // 2


# ---- what is missing


def test_without_the_data_predictions_still_make_their_tables(run, data, tmp_path):
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**meta, "data": str(tmp_path / "moved.h5")}))
    result = evaluate(run)
    assert {t.number for t in result.report.tables} - {""} == {"Table III"}
    assert {p.number for p in result.report.pictures} - {""} == {"Figure 2", "Figure 7", "Figure 8"}
    gone = [m for m in result.missing if "is not there any more" in m.reason]
    assert {m.number for m in gone} >= {"Table II", "Figure 5", "Figure 9", "Figure 10"}
    assert all("--data DATA.h5" in m.command for m in gone)
    assert (
        evaluate(run, request=EvaluateRequest(data=data, faces=False)).report.tables[-1].key
        != result.report.tables[-1].key
    )
    # phases.csv is kept now, so they need no data.
    assert "Table II" in {t.number for t in evaluate(run, request=QUICK).report.tables}
    pack(data, tmp_path / "one.h5")
    result = evaluate(run, request=EvaluateRequest(data=tmp_path / "one.h5", quick=True))
    assert "Figure 9" in {p.number for p in result.report.pictures}
    assert "another file" in result.files[0].read_text(errors="replace")


def test_other_data_are_refused(run, tmp_path):
    other = smiling_file(tmp_path / "other.h5", subjects=6)
    with pytest.raises(LeakageError, match="is not the data of this run"):
        evaluate(run, request=EvaluateRequest(data=other))
    with pytest.raises(DataError, match="does not exist"):
        evaluate(run, request=EvaluateRequest(data=tmp_path / "none.h5"))


def test_faces_of_another_size_are_refused(run, data, tmp_path):
    trained = FaceDataset(data)
    small = [
        {
            "id": video.id, "frames": video.frames[:, ::2, ::2], "subject": video.subject, "age": video.age,
            "landmarks": video.landmarks, "timestamps": video.timestamps,
        }
        for video in trained.values()
    ]  # fmt: skip
    half = small[0]["frames"].shape[1]
    path = write_dataset(tmp_path / "small.h5", small)
    sizes = f"faces of {half} x {half} pixels.*trained on faces of {trained.size} x {trained.size}"
    with pytest.raises(DataError, match=sizes):
        evaluate(run, request=EvaluateRequest(data=path))
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**meta, "data": str(path)}))  # it took the other one's place
    result = evaluate(run)
    assert any(re.search(sizes, item.reason) for item in result.missing)


def test_commands_for_what_is_missing_are_commands(run, studies, tmp_path):
    broken = Path(shutil.copytree(studies[0], tmp_path / "broken study"))
    shutil.rmtree(broken / "agnostic" / "folds" / "01")
    for name in ("predictions.csv", "run.json"):
        (broken / "agnostic" / name).unlink()
    result = evaluate([run, broken], request=QUICK)
    left = next(m for m in result.missing if "agnostic" in m.title)
    assert "lacks fold 1" in left.reason
    assert len(next(t for t in result.report.tables if t.number == "Table I").groups[0].rows) == 3
    commands = [part for m in result.missing for part in m.command.split(" && ") if part]
    assert len(commands) > 6
    for text in commands:
        words = shlex.split(text)
        assert words[0] == "nemo"
        load_command(words[1]).make_context(words[1], words[2:])  # raises when an option is none


def test_folds_of_array_jobs_are_joined(run):
    whole = read_predictions(run / "predictions.csv")
    for name in ("predictions.csv", "run.json"):
        (run / name).unlink()
    shutil.rmtree(run / "baselines")
    shutil.rmtree(run / "model")
    result = evaluate(run, request=EvaluateRequest(faces=False))
    assert sorted(result.methods["SIAM"].video) == sorted(whole.video) and len(result.methods) == 4
    assert {"Table II", "Table III"} <= {t.number for t in result.report.tables}
    assert not (run / "predictions.csv").exists()
    RunFolder(run).fold(1).predictions.unlink()
    with pytest.raises(RunError, match=r"lacks fold 1 of 2.*`resume\("):
        evaluate(run)


def test_methods_from_files(run, tmp_path):
    p = read_predictions(run / "predictions.csv")
    more = Predictions((*p.video, "more"), (*p.subject, "s"), np.append(p.fold, 0), np.append(p.age, 20.0),
                       np.append(p.predicted + 1, 0.0))  # fmt: skip
    write_predictions(tmp_path / "m.csv", more)
    result = evaluate(run, request=dataclasses.replace(QUICK, others={METHOD: tmp_path / "m.csv"}))
    np.testing.assert_allclose(result.methods[METHOD].predicted, p.predicted + 1)
    assert METHOD in [row[0] for row in result.rows]
    assert METHOD not in result.files[0].read_text(errors="replace")  # escaped
    less = Predictions(p.video[1:], p.subject[1:], p.fold[1:], p.age[1:], p.predicted[1:])
    write_predictions(tmp_path / "m.csv", less)
    with pytest.raises(DataError, match="does not predict the same videos"):
        evaluate(run, request=EvaluateRequest(others={"m": tmp_path / "m.csv"}))
    write_predictions(tmp_path / "m.csv", Predictions(p.video, p.subject, p.fold, p.age + 1, p.predicted))
    with pytest.raises(DataError, match="the same true ages"):
        evaluate(run, request=EvaluateRequest(others={"m": tmp_path / "m.csv"}))
    write_predictions(tmp_path / "m.csv", p)
    with pytest.raises(SettingsError, match="a method of that name"):
        evaluate(run, request=EvaluateRequest(others={"SIAM": tmp_path / "m.csv"}))


def test_two_runs_are_compared(run, made, tmp_path):
    second = Path(shutil.copytree(made, tmp_path / "second"))
    p = read_predictions(second / "predictions.csv")
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(p))
    write_predictions(second / "predictions.csv", Predictions(
        tuple(p.video[i] for i in shuffled), tuple(p.subject[i] for i in shuffled), p.fold[shuffled],
        p.age[shuffled], p.predicted[shuffled] + rng.normal(0, 3, len(p)),
    ))  # fmt: skip
    result = evaluate([run, second], tmp_path / "out", request=QUICK)
    assert list(result.methods)[:2] == ["SIAM", "run second"]
    table = next(t for t in result.report.tables if t.key == "figure-8-numbers")
    assert "p_subjects_run second" in [c.name for c in table.columns]
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text(json.dumps({"study": "modules", "variants": []}))
    with pytest.raises(SettingsError, match="both a study"):
        evaluate([run, study, study])
    with pytest.raises(RunError, match="No variant"):
        evaluate(study)


def test_real_faces_have_a_notice_and_the_papers_numbers_beside(data, run):
    for file in (run / "run.json", run / "settings.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "synthetic": False}))
    result = evaluate(run)
    page = result.files[0].read_text(errors="replace")
    assert "biometric data" in page and "Synthetic faces." not in page
    two = next(t for t in result.report.tables if t.number == "Table II")
    assert [c.name for c in two.columns][-2:] == ["paper_mae", "paper_deviation"]
    assert "biometric" not in evaluate(run, request=EvaluateRequest(faces=False)).files[0].read_text(
        errors="replace"
    )


def test_open_run_of_hostile_names(made):
    assert set(HOSTILE) <= set(open_run(RunFolder(made)).predictions.video)


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder: mode, time of the last change (a folder's: of its entries too) and bytes."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("joined", [True, False])
def test_evaluating_writes_nothing_below_the_run(run, data, tmp_path, joined):
    if not joined:
        for name in ("predictions.csv", "run.json"):
            (run / name).unlink()
        shutil.rmtree(run / "baselines")
    before = state(run), state(data.parent)
    result = evaluate(run, tmp_path / "out")
    assert (state(run), state(data.parent)) == before
    assert {"Table II", "Table III"} <= {t.number for t in result.report.tables}
    assert EvaluationFolder(tmp_path / "out").phases.is_file()


def test_a_run_that_cannot_be_written_to_is_evaluated_elsewhere(run):
    (run / "evaluation").write_text("")  # for root too
    with pytest.raises(
        OutputError, match=r"Nothing can be written to .*evaluation \(.*\): name another folder"
    ):
        evaluate(run)
