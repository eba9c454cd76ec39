"""The mean of a run's folds; and a trained run's files, read by NumPy alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline.errors import NemoError, RunError
from siam_model import load
from tests.reference import numpy_siam
from tests.support.models import card, faces, read_safetensors, write_model


@pytest.fixture
def run(tmp_path) -> Path:
    for fold in range(3):
        ages = {"min": 8.0 + fold, "median": 30.0, "max": 70.0 + fold}
        subjects = {"training": [f"t{fold}", "x"], "validation": [f"v{fold}"]}
        write_model(tmp_path / "folds" / f"{fold:02d}" / "model", seed=fold, ages=ages, subjects=subjects)
    write_model(tmp_path / "model", seed=9)
    return tmp_path


def test_an_ensemble_is_the_mean_of_its_members(run):
    frames, both = faces(8), load(run, ensemble=True)
    each = [load(run / "folds" / f"{fold:02d}").predict(frames) for fold in range(3)]
    found = both.predict(frames)
    assert found.age == pytest.approx(np.mean([p.age for p in each]), abs=1e-9)
    assert np.ptp([p.age for p in each]) > 0.01
    np.testing.assert_allclose(found.temporal_weights, np.mean([p.temporal_weights for p in each], axis=0))
    assert found.temporal_weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        found.spatial_attention, np.mean([p.spatial_attention for p in each], axis=0), atol=1e-6
    )
    assert found.spatial_attention.dtype == np.float32
    assert both.spread(frames) == pytest.approx(np.std([p.age for p in each]))
    assert load(run).predict(frames).age != found.age, "without it, the run's own model answers"


def test_an_ensemble_says_whom_it_saw(run):
    both = load(run, ensemble=True)
    assert both.age_range == (8.0, 72.0)
    assert both.subjects == {"training": ["t0", "t1", "t2", "x"], "validation": ["v0", "v1", "v2"]}
    assert not both.synthetic
    assert both.prep_config == card().prep and both.config == card().model
    write_model(run / "folds" / "01" / "model", synthetic=True)
    assert load(run, ensemble=True).synthetic
    assert "Ensemble of 3" in repr(both)


def test_no_ensemble(run):
    shutil.rmtree(run / "folds" / "01" / "model")
    with pytest.raises(RunError, match=r"Fold 01 of .* has no model yet; resume with `resume\("):
        load(run, ensemble=True)
    write_model(run / "folds" / "01" / "model", mean_shape=card().mean_shape * 1.01)
    with pytest.raises(RunError, match="prepared in another way"):
        load(run, ensemble=True)
    shutil.rmtree(run / "folds")
    with pytest.raises(RunError, match="needs a run with `folds`"):
        load(run, ensemble=True)


@pytest.mark.parametrize(("folds", "said"), [("1e9", "damaged: folds is '1e9'"), (10**9, "Fold 3 of")])
def test_settings_with_an_absurd_number_of_folds(run, folds, said):
    (run / "settings.json").write_text(json.dumps({"folds": folds}))
    with pytest.raises(NemoError, match=said):
        load(run, ensemble=True)


def test_numpy_reads_a_trained_model_and_gets_its_age(tmp_path):
    """A real training's config.json and model.safetensors: standardise, run the equations in float64, average."""
    from nemo_pipeline.store import FaceDataset
    from tests.support.siam_faces import drawn_file
    from tests.support.siam_runs import quick

    data = drawn_file(tmp_path / "out.h5", size=70, subjects=8, frames=7, clips=1)
    run = quick(data, tmp_path / "run", epochs=3)
    values = json.loads((run / "model" / "config.json").read_text())
    tensors = read_safetensors(run / "model" / "model.safetensors")
    norm, step = values["normalisation"], values["train"]["temporal_stride"]
    for video in list(FaceDataset(data).values())[:3]:
        frames = (video.frames.astype(np.float64) - norm["mean"]) / norm["deviation"]
        ages = [numpy_siam.siam(tensors, values["model"], frames[k::step])[0] for k in range(step)]
        assert load(run).predict(video.frames).age == pytest.approx(np.mean(ages), abs=1e-3)
