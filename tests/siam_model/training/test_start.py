"""Stills train without recurrence; a training starts from another run's weights: what is taken, refused, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import siam_model
from nemo_pipeline.errors import DataError, LeakageError, RunError, SettingsError
from nemo_pipeline.geometry import shipped_mean_shape
from nemo_pipeline.store import FaceDataset, write_dataset
from siam_model.checkpoint import load_card
from siam_model.runs import read_json
from tests.support.siam_faces import drawn_videos
from tests.support.siam_runs import Listener, Stop, quick, results, resume


def written(
    path: Path, prefix: str, frames: int, subjects: int = 8, seed: int = 0, jitter: float = 0.0
) -> Path:
    """Drawn people whose codes begin with `prefix`; with `jitter`, pixels, landmarks that move so much."""
    rng = np.random.default_rng(seed)

    def videos():
        for i, video in enumerate(drawn_videos(subjects, 1, frames, 70, seed)):
            if jitter:
                points = 100 * shipped_mean_shape() + rng.normal(0, jitter, (frames, 68, 2))
                video |= {"landmarks": points.astype(np.float32)}
            yield video | {"subject": prefix + video["subject"], "sha256": f"{prefix}{i}".encode().hex()}

    return write_dataset(path, videos())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """stills.h5 and a run of it; clips.h5 of other people."""
    folder = tmp_path_factory.mktemp("start")
    written(folder / "stills.h5", "photo", 1, 12)
    written(folder / "clips.h5", "clip", 6, seed=1)
    quick(folder / "stills.h5", folder / "stills")
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_stills_train_without_recurrence_and_that_is_said(place, tmp_path):
    heard = Listener()
    quick(place / "stills.h5", tmp_path / "run", reporter=heard)
    assert "Every video is one frame: the model has no recurrence and no temporal attention." in heard.said
    made = read_json(tmp_path / "run" / "run.json")["model"]
    assert not made["recurrent"] and not made["temporal_attention"]
    model = siam_model.load(tmp_path / "run")
    assert np.isfinite(model.predict(FaceDataset(place / "stills.h5")[0].frames).age)
    kept = {"model.recurrent": "true"}
    asked = quick(place / "stills.h5", tmp_path / "asked", overrides=kept)
    assert read_json(asked / "run.json")["model"]["recurrent"], "a setting of one's own stays"
    clips = quick(place / "clips.h5", tmp_path / "clips")
    assert read_json(clips / "run.json")["model"]["recurrent"]


def test_what_fits_is_taken_and_said(place, tmp_path):
    heard = Listener()
    frozen = {"train.freeze_appearance": "2"}
    run = quick(
        place / "clips.h5", tmp_path / "run", init=str(place / "stills"), overrides=frozen, reporter=heard
    )
    (line,) = [text for text in heard.said if text.startswith("Starts from")]
    assert "appearance, regression" in line and "these start fresh: recurrence, temporal" in line
    before, after = weights(place / "stills"), weights(run)
    for name, tensor in before.items():
        same = torch.equal(tensor, after[name])
        assert same == name.startswith("appearance"), name
    card, source = load_card(run), load_card(place / "stills")
    assert set(source.videos) <= set(card.videos)
    assert card.start_subjects == sorted(source.subjects["training"] + source.subjects["validation"])
    fresh = quick(place / "clips.h5", tmp_path / "fresh", overrides=frozen)
    assert not torch.equal(weights(fresh)["appearance.first.weight"], before["appearance.first.weight"])


def test_it_goes_on_to_the_bit_and_not_with_other_weights(place, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(place / "stills", source)
    whole = quick(place / "clips.h5", tmp_path / "whole", init=str(source), epochs=3)
    with pytest.raises(Stop):
        quick(place / "clips.h5", tmp_path / "cut", init=str(source), epochs=3, reporter=Listener(stop_at=1))
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    resume(tmp_path / "cut", device="cpu")
    assert results(tmp_path / "cut") == results(whole)
    shutil.rmtree(source)
    shutil.copytree(whole, source)
    with pytest.raises(RunError, match="holds other weights than those that"):
        resume(tmp_path / "other", device="cpu")


def test_a_run_made_with_them_predicts_elsewhere_without_its_data(place, tmp_path):
    """Pretrained, started from stills, frozen for an epoch: the model folder alone says the same age."""
    data, source = tmp_path / "clips.h5", tmp_path / "stills"
    written(data, "clip", 6, seed=1, jitter=2.0)
    shutil.copytree(place / "stills", source)
    more = {"train.pretrain": "shape", "train.pretrain_epochs": "1", "train.freeze_appearance": "1"}
    run = quick(data, tmp_path / "run", init=str(source), overrides=more)
    frames = FaceDataset(data)[0].frames
    before = siam_model.load(run).predict(frames).age
    shutil.copytree(run / "model", tmp_path / "elsewhere" / "model")
    for gone in (run, source, data.with_suffix(".shards")):
        shutil.rmtree(gone, ignore_errors=True)
    data.unlink()
    assert siam_model.load(tmp_path / "elsewhere").predict(frames).age == before


def test_who_was_seen_there_is_not_tested_here(place, tmp_path):
    with pytest.raises(LeakageError, match="stills was trained with") as caught:
        quick(place / "stills.h5", tmp_path / "run", init=str(place / "stills"), seed=1)
    assert caught.value.shared and all(subject.startswith("photos") for subject in caught.value.shared)
    # That equal codes are other people can be said; that equal files are others cannot.
    with pytest.raises(LeakageError, match=r"would be tested, and .* was trained with it"):
        quick(
            place / "stills.h5", tmp_path / "run", init=str(place / "stills"), seed=1, distinct_subjects=True
        )
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused(place, tmp_path):
    with pytest.raises(SettingsError, match=r"does not fit this network: appearance\..* Use its `preset`"):
        quick(
            place / "clips.h5",
            tmp_path / "run",
            init=str(place / "stills"),
            overrides={"model.channels": "6,8,9"},
        )

    def videos():
        yield from drawn_videos(8, 1, 6, 62)

    write_dataset(tmp_path / "small.h5", videos())
    with pytest.raises(DataError, match="saw faces of 70 pixels, and these have 62"):
        quick(tmp_path / "small.h5", tmp_path / "run", init=str(place / "stills"))
    with pytest.raises(DataError, match="nowhere"):
        quick(place / "clips.h5", tmp_path / "run", init=str(tmp_path / "nowhere"))
