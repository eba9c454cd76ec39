"""Trained models on disk, what they say about faces, and which run is picked unasked."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import DataError, OutputError, RunError, SettingsError
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model import SIAMConfig, TrainConfig, load
from siam_model.checkpoint import load_card
from siam_model.explain import cell_centres, flat_note, heat_map, key_frames, largest_heat
from siam_model.figures.heat import over_face
from siam_model.runs import new_run_folder, newest_run
from tests.reference import numpy_siam
from tests.support.models import SIZE, faces, read_safetensors, write_model


@pytest.mark.parametrize(("length", "mirrored"), [(1, True), (2, False), (3, False), (8, False), (8, True)])
def test_numpy_reads_the_files_and_gets_the_same_age(tmp_path, length, mirrored):
    write_model(tmp_path / "model", train=TrainConfig(temporal_stride=3, predict_mirrored=mirrored))
    model, frames = load(tmp_path), faces(length)
    prediction = model.predict(frames)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    tensors = read_safetensors(tmp_path / "model" / "model.safetensors")
    step = min(config["train"]["temporal_stride"], length)
    scaled = (frames - config["normalisation"]["mean"]) / config["normalisation"]["deviation"]
    ages, weights, maps = [], np.zeros(length), np.zeros((length, 4, 4))
    ways = (1, -1) if mirrored else (1,)  # left to right, and right to left
    for way in ways:
        for phase in range(step):
            age, o, attention = numpy_siam.siam(tensors, config["model"], scaled[phase::step, :, ::way])
            ages.append(age)
            weights[phase::step] += o / step / len(ways)
            maps[phase::step] += attention[..., ::way] / len(ways)
    assert prediction.age == pytest.approx(np.mean(ages), abs=1e-3)
    np.testing.assert_allclose(prediction.temporal_weights, weights, atol=1e-5)
    np.testing.assert_allclose(prediction.spatial_attention, maps, atol=1e-5)
    assert prediction.temporal_weights.sum() == pytest.approx(1)


def test_round_trip(tmp_path):
    written = write_model(tmp_path / "run" / "model", synthetic=True)
    for path in (tmp_path / "run", tmp_path / "run" / "model"):
        model = load(path)
        read = model.card
        assert read.model == written.model and read.train == written.train
        assert read.normalisation == written.normalisation
        np.testing.assert_array_equal(model.mean_shape, written.mean_shape)
        np.testing.assert_array_equal(model.triangles, written.triangles)
        assert (read.ages, read.subjects, read.seed) == (written.ages, written.subjects, 3)
        assert (model.synthetic, model.age_range, model.prep_config) == (True, (8.0, 76.0), {"size": SIZE})
        assert "synthetic" in repr(model)
        assert not model.network.training
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["model"], "no temporary file is left"
    before = load(tmp_path / "run").predict(faces(4)).age
    write_model(tmp_path / "run" / "model", seed=1)
    assert load(tmp_path / "run").predict(faces(4)).age != before
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert np.isfinite(load(tmp_path / "elsewhere").predict(faces(4)).age)


def test_faces_that_do_not_fit(tmp_path):
    write_model(tmp_path / "model")
    model = load(tmp_path)
    for wrong in (faces(3).astype(np.float32), faces(3)[:, 1:], faces(3)[0], faces(0)):
        with pytest.raises(ValueError, match=r"uint8 \(T,62,62\)"):
            model.predict(wrong)


def test_damaged_models_are_answered(tmp_path):
    write_model(tmp_path / "model")
    config, weights = tmp_path / "model" / "config.json", tmp_path / "model" / "model.safetensors"
    good_config, good_weights = config.read_text(), weights.read_bytes()
    values = json.loads(good_config)

    def broken(text: str, sentence: str) -> None:
        config.write_text(text)
        with pytest.raises(DataError, match=sentence):
            load(tmp_path)
        config.write_text(good_config)

    broken("{", "is damaged")
    broken("[]", "is not a JSON object")
    broken("[" * 100_000, "is damaged")
    broken(json.dumps({**values, "format_version": 99}), "newer version")
    broken(json.dumps({**values, "mean_shape": [[0, 0]]}), "is damaged")
    broken(json.dumps({**values, "model": {**values["model"], "wings": 2}}), "unknown setting wings")
    broken(json.dumps({**values, "model": {**values["model"], "hidden": 8}}), "does not hold the weights")
    broken(json.dumps({k: v for k, v in values.items() if k != "prep"}), "is damaged")
    for data in (good_weights[:100], b"", good_weights[:8] + b"x" * 500):
        weights.write_bytes(data)
        with pytest.raises(DataError, match="does not hold the weights"):
            load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        load(tmp_path)
    with pytest.raises(DataError, match="is not there; give a run folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no model"):
        config.unlink()
        load(tmp_path)
    with pytest.raises(SettingsError, match="no device 'tpu'"):
        write_model(tmp_path / "model")
        load(tmp_path, "tpu")


def test_the_newest_run_of_real_faces_is_picked(tmp_path):
    root = tmp_path / "runs"
    with pytest.raises(RunError, match=r"no trained model in .*runs.*nemo train"):
        newest_run(root)
    write_model(root / "s1" / "model", synthetic=True)
    with pytest.raises(RunError, match=r"synthetic faces.*mean nothing for people.*`model=.*s1"):
        newest_run(root)
    for number, name in enumerate(("b", "a")):
        write_model(root / name / "model")
        os.utime(root / name / "model" / "config.json", (1000 + number, 1000 + number))
    (root / "training").mkdir()  # not finished
    (root / "broken" / "model").mkdir(parents=True)
    (root / "broken" / "model" / "config.json").write_text("{")
    assert newest_run(root) == root / "a"


def test_run_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = new_run_folder(None), new_run_folder(None)
    assert first != second and first.parent == second.parent == Path("runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="exists already"):
        new_run_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be created"):
        new_run_folder(tmp_path / "file" / "below")


def test_card_without_weights(tmp_path):
    write_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert load_card(tmp_path).seed == 3


def test_heat_map_is_the_mean_of_the_cells_around_their_receptive_fields():
    config = SIAMConfig()
    centres = [17 + 8 * i for i in range(10)]
    assert cell_centres(config).tolist() == centres
    attention = np.random.default_rng(0).uniform(0.2, 0.9, (2, 10, 10))
    attention[1] = 0
    attention[1, 2, 7] = 1
    heat = heat_map(attention, config)
    assert heat.shape == (2, 114, 114)
    for y, x in ((0, 0), (33, 73), (57, 41), (113, 60), (113, 113)):
        above = below = 0.0
        for i, cy in enumerate(centres):
            for j, cx in enumerate(centres):
                weight = math.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 8.75**2))
                above, below = above + weight * attention[0, i, j], below + weight
        assert heat[0, y, x] == pytest.approx(above / below, rel=1e-12)
    assert np.unravel_index(heat[1].argmax(), (114, 114)) == (33, 73)


@pytest.mark.parametrize("face", [70, 114, 200])
def test_a_flat_map_stays_flat_to_the_edge(face):
    config = SIAMConfig(face_size=face, attention_position=1)
    side = config.map_size(1)
    np.testing.assert_allclose(heat_map(np.full((side, side), 0.4), config), 0.4, atol=1e-12)


def test_flat_maps_are_said():
    config, frames = SIAMConfig(), np.zeros((3, 114, 114), np.uint8)
    frames[:, 20:100, 20:100] = 90
    maps = np.random.default_rng(1).uniform(0.35, 0.6, (3, 10, 10))  # noise, no region
    heat = heat_map(maps, config)[:, 20:100, 20:100]
    note = flat_note(frames, maps, config)
    assert f"({heat.min():.2f} to {heat.max():.2f})" in note and "singles out no region" in note
    assert heat.max() < maps.max()
    maps[1, 4:7, 4:7] = 0.9  # in one frame
    assert flat_note(frames, maps, config) == ""
    assert flat_note(frames, np.zeros((3, 10, 10)), config) == ""
    assert flat_note(np.zeros_like(frames), maps, config) == ""


def test_over_the_face_flat_attention_is_one_tint():
    face = np.full((114, 114), 100, np.uint8)
    inside = np.zeros((114, 114), bool)
    inside[10:90] = True
    rng = np.random.default_rng(2)
    flat = heat_map(rng.uniform(0.49, 0.5, (10, 10)), SIAMConfig())
    drawn = over_face(face, flat, 0.5, inside)
    assert np.ptp(drawn[inside].astype(int), axis=0).max() < 12
    assert (drawn[~inside] == 100).all()
    spot = np.full((10, 10), 0.05)
    spot[5, 5] = 0.5
    faces = np.where(inside, face, 0)[None].astype(np.uint8)
    largest = largest_heat(faces, spot[None], SIAMConfig())
    heat = heat_map(spot, SIAMConfig())
    assert largest == heat[inside].max() < 0.5
    drawn = over_face(face, heat, largest, inside)  # attention in one cell reaches the last colour
    assert np.ptp(drawn[inside].astype(int), axis=0).max() > 100


def test_a_video_of_a_dataset_is_predicted_as_it_is(tmp_path):
    write_model(tmp_path / "model")
    path = write_dataset(tmp_path / "out.h5", [{"id": "a", "frames": faces(3)}])
    model, video = load(tmp_path), FaceDataset(path)["a"]
    assert model.predict(video).age == model.predict(video.frames).age
    with pytest.raises(TypeError, match=r"a video of FaceDataset, or its \.frames; this is FaceDataset"):
        model.predict(FaceDataset(path))


@pytest.mark.parametrize("level", [0, 128])
def test_blank_frames_have_no_age(tmp_path, level):
    write_model(tmp_path / "model")
    model, blank = load(tmp_path), np.full((4, SIZE, SIZE), level, np.uint8)
    blank += np.arange(4, dtype=np.uint8)[:, None, None]  # brighter from frame to frame
    with pytest.raises(DataError, match="show no face"):
        model.predict(blank)
    assert math.isfinite(model.predict(np.concatenate([blank, faces(1)])).age)


def test_key_frames():
    assert key_frames(60, 4).tolist() == [0, 20, 39, 59]
    assert key_frames(3, 8).tolist() == [0, 1, 2]
    assert key_frames(1).tolist() == [0]
