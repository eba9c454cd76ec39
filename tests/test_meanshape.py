"""Mean shapes from files and from the data: frozen, the same for any number of workers, one pass or two."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nemo_pipeline import PrepConfig
from nemo_pipeline.batch.cluster import Event
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.join import join
from nemo_pipeline.batch.mean_shape_pass import video_shape
from nemo_pipeline.batch.parts import Part
from nemo_pipeline.batch.run import PrepInputs, RunOptions, prep, preview
from nemo_pipeline.batch.summary import PrepSummary
from nemo_pipeline.errors import DataError, SettingsError
from nemo_pipeline.geometry import (
    align_similarity,
    normalised_shape,
    procrustes_mean,
    shipped_mean_shape,
    shipped_triangles,
)
from nemo_pipeline.meanshape import MeanShape, load_shape, new_shape, read_mean_shape, save_shape
from nemo_pipeline.store import FaceDataset, write_dataset
from nemo_pipeline.store.verify import verify
from tests.support.clips import acted, other_person, person, sway, write_clip

CONFIG = PrepConfig(size=48, mesh=False, mean_shape="from-data")


def other_shape(seed: int = 1) -> np.ndarray:
    """(68, 2): the shipped shape, a little different everywhere, elsewhere, larger and tilted."""
    rng = np.random.default_rng(seed)
    shape = shipped_mean_shape() + rng.normal(0, 0.01, (68, 2))
    c, s = np.cos(0.2), np.sin(0.2)
    return shape @ np.array([[c, s], [-s, c]]) * 130 + (320, 240)


# --- files ---------------------------------------------------------------------------------------------------------


def write_shapes(folder: Path, points: np.ndarray) -> list[Path]:
    text = "\n".join(f"{x!r}, {y!r}" for x, y in points.tolist())
    np.savez(folder / "one.npz", points)
    np.savez(folder / "named.npz", mean_shape=points, other=np.zeros(3))
    np.save(folder / "plain.npy", points)
    (folder / "names.csv").write_text("\ufeffx,y\n" + text + "\n")
    (folder / "bare.csv").write_text(text.replace(", ", ";"))
    np.savetxt(folder / "tab.txt", points, fmt="%.17g", delimiter="\t")
    lines = "\n".join(f"{x + 1!r} {y + 1!r}" for x, y in points.tolist())
    (folder / "face.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    return sorted(folder.iterdir())


def test_every_kind_of_file_gives_the_same_shape(tmp_path: Path) -> None:
    expected = new_shape(other_shape())
    paths = write_shapes(tmp_path, other_shape())
    assert len(paths) == 7
    for path in paths:
        shape = read_mean_shape(path)
        assert shape.sha256 == expected.sha256, path.name
        np.testing.assert_array_equal(shape.triangles, expected.triangles)
    right, left = expected.points[36], expected.points[45]
    np.testing.assert_allclose(left - right, (1, 0), atol=1e-8)
    np.testing.assert_allclose(left + right, (0, 0), atol=1e-8)


def test_a_prepared_file_lends_its_shape_with_its_triangles(tmp_path: Path) -> None:
    shape = new_shape(other_shape())
    face = {"id": "a", "frames": np.zeros((2, 32, 32), np.uint8)}
    write_dataset(tmp_path / "a.h5", [face], mean_shape=shape.points, triangles=shape.triangles)
    got = read_mean_shape(tmp_path / "a.h5")
    assert got.sha256 == shape.sha256
    np.testing.assert_array_equal(got.triangles, shape.triangles)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "1,2\n3,4\n", r"\(2, 2\)"),
        ("a.csv", "x,y\n1,2\nthree,4\n", "line 3 is not two numbers"),
        ("a.txt", "1 2 3\n" * 68, "line 2"),
        ("a.csv", "1,1\n" * 68, "eye corners .* fall together"),
        ("a.json", "{}", "give 68 points"),
        ("a.npz", "no archive", "a.npz"),
        ("a.npy", "", "a.npy"),
        ("a.h5", "no hdf5", "a.h5"),
    ],
)
def test_what_is_no_shape_is_said(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words) as error:
        read_mean_shape(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p * (1, -1), "y downwards"),
        (lambda p: p[::-1], "iBUG"),
        (lambda p: np.vstack([p[:67], p[8:9]]), "fall together"),
        (lambda p: p[:51], r"\(51, 2\)"),
        (lambda p: np.where(np.arange(136).reshape(68, 2) == 5, np.nan, p), "not a number"),
    ],
)
def test_points_that_are_no_face(change: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        new_shape(change(shipped_mean_shape()))


def test_a_kept_shape_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "shape.json"
    assert load_shape(path) is None
    shape = MeanShape(shipped_mean_shape() / 3, shipped_triangles())
    save_shape(shape, path, "custom")
    assert load_shape(path, "from-data") is None
    again = load_shape(path, "custom")
    assert again is not None and again.sha256 == shape.sha256 and path.stat().st_mode & 0o777 == 0o600
    np.testing.assert_array_equal(again.triangles, shape.triangles)
    values = json.loads(path.read_text())
    values["mean_shape"][0][0] += 1e-9
    for text in (json.dumps(values), "{", "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"shape\.json"):
            load_shape(path)


def test_a_video_counts_by_the_mean_over_its_rows() -> None:
    """Scale, place and tilt of the frames do not matter, nor in which row they are."""
    rng = np.random.default_rng(0)
    points = np.stack(
        [other_shape(int(rng.integers(1, 4))) * rng.uniform(0.5, 2) + rng.normal(0, 50, 2) for _ in range(7)]
    ).astype(np.float32)
    np.testing.assert_allclose(video_shape([points[:4], points[4:]]), procrustes_mean(points)[0], atol=1e-6)


# --- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, a long and a short clip; and one with nobody."""
    folder = tmp_path_factory.mktemp("videos")

    def play(actor, eye_px):
        def at(k):
            dx, dy = sway(k, 3.0)
            return [(actor, actor.placed(100 + dx, 70 + dy, eye_px, 4 * np.sin(k / 5)))]

        return at

    write_clip(folder / "a.mp4", acted(24, (200, 160), play(person(), 50)))
    write_clip(folder / "b.mp4", acted(9, (200, 160), play(other_person(), 42)))
    write_clip(folder / "c.mp4", acted(8, (200, 160), lambda k: []))
    write_clip(folder / "later.mp4", acted(10, (200, 160), play(person(), 38)))
    return folder


def run(folder: Path, output: Path, config: PrepConfig = CONFIG, **options) -> PrepSummary:
    shape = options.pop("mean_shape", None)
    on_event = options.pop("on_event", lambda event: None)
    found = discover([folder], exclude=() if options.pop("later", False) else ("later*",))
    options = {"workers": 1} | options
    return prep(
        PrepInputs(found.videos), output, config, RunOptions(**options), mean_shape=shape, on_event=on_event
    )


@pytest.fixture(scope="module")
def first(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The output of one run, and what was said."""
    output = tmp_path_factory.mktemp("first") / "out.h5"
    said: list[str] = []
    run(videos, output, on_event=lambda event: said.append(event.text) if event.kind == "stage" else None)
    return output, said


def same(a: FaceDataset, b: FaceDataset, name: str) -> None:
    for field in a.fields:
        np.testing.assert_array_equal(a[name].read(field), b[name].read(field), err_msg=f"{name} {field}")


def test_the_mean_of_the_data_is_frozen_in_the_file(first: tuple[Path, list[str]]) -> None:
    data = FaceDataset(first[0])
    assert data.config.mean_shape == "from-data" and len(data.config.mean_shape_sha256) == 64
    assert data.config.mean_shape_sha256 == MeanShape(data.mean_shape, data.triangles).sha256
    # Every video once, whatever its length; its landmarks are smoothed.
    means = [procrustes_mean(data[name].landmarks)[0] for name in ("a", "b")]
    scale, rotation, shift = align_similarity(means[1], means[0])
    half = normalised_shape((means[0] + scale * means[1] @ rotation.T + shift) / 2)
    np.testing.assert_allclose(data.mean_shape, half, atol=0.003)
    assert np.abs(data.mean_shape - means[0]).max() > 0.02
    assert [data[name].status for name in ("a", "b", "c")] == ["ok", "ok", "no_face"]
    assert "2 videos" in first[1][1] and "First pass" in first[1][0]
    assert sorted(p.name for p in data.shards_folder.iterdir() if not p.name.startswith("0")) == [
        ".lock",
        "mean_shape.json",
    ]


def test_two_passes_are_one_pass_with_that_shape(
    videos: Path, first: tuple[Path, list[str]], tmp_path: Path
) -> None:
    shape = read_mean_shape(first[0])
    config = dataclasses.replace(CONFIG, mean_shape="custom", mean_shape_sha256=shape.sha256)
    run(videos, tmp_path / "one.h5", config, mean_shape=shape)
    one, two = FaceDataset(tmp_path / "one.h5"), FaceDataset(first[0])
    for name in ("a", "b"):
        same(one, two, name)
    np.testing.assert_array_equal(one.triangles, two.triangles)


def test_the_number_of_workers_does_not_matter(
    videos: Path, first: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run(videos, tmp_path / "two.h5", workers=2)
    one, two = FaceDataset(first[0]), FaceDataset(tmp_path / "two.h5")
    assert one.config == two.config
    for name in ("a", "b"):
        same(one, two, name)


def test_clips_added_later_reuse_the_shape(
    videos: Path, first: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output = tmp_path / "out.h5"
    shutil.copy(first[0], output)
    shutil.copytree(first[0].with_suffix(".shards"), tmp_path / "out.shards")
    before = FaceDataset(output)
    found = discover([videos]).videos
    assert preview(PrepInputs(found), output, CONFIG)[0] == {"a.mp4", "b.mp4", "c.mp4"}
    stages = []
    summary = run(
        videos, output, later=True, on_event=lambda e: stages.append(e) if e.kind == "stage" else None
    )
    after = FaceDataset(output)
    assert (summary.done_before, summary.done_now, stages) == (3, 1, [])
    assert after.config == before.config and after["later"].status == "ok"
    # Also when the index is gone: the shape stands beside the shards.
    output.unlink()
    assert run(videos, output, later=True).done_now == 0
    np.testing.assert_array_equal(FaceDataset(output).mean_shape, before.mean_shape)
    with pytest.raises(DataError, match="mean_shape from-data there, shipped here"):
        run(videos, output, dataclasses.replace(CONFIG, mean_shape="shipped"))
    # Anew, with all four: another mean.
    run(videos, output, later=True, force=True)
    assert FaceDataset(output).config.mean_shape_sha256 != before.config.mean_shape_sha256
    shards = output.with_suffix(".shards")
    assert not [p for p in shards.iterdir() if p.name.startswith((".tracked", ".work", ".forced"))]


def test_a_run_that_ends_between_the_passes_goes_on(
    videos: Path, first: tuple[Path, list[str]], tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(event: Event) -> None:
        if "Second pass" in event.text:
            raise Enough

    output = tmp_path / "out.h5"
    with pytest.raises(Enough):
        run(videos, output, on_event=stop)
    assert not output.exists()
    planned = []
    run(videos, output, on_event=lambda e: planned.append((e.n, e.total)) if e.kind == "planned" else None)
    assert planned == [(3, 0), (0, 3)]  # tracked before; now warped
    one, two = FaceDataset(first[0]), FaceDataset(output)
    assert one.config == two.config
    same(one, two, "a")


def test_parts_with_a_shape_are_joined(videos: Path, first: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Each part keeps the shape, also in a folder of its own; the joined file is that of one run."""
    shape = read_mean_shape(first[0])
    config = dataclasses.replace(CONFIG, mean_shape="custom", mean_shape_sha256=shape.sha256)
    for k in (1, 2):
        run(videos, tmp_path / f"part{k}.h5", config, mean_shape=shape, part=Part(k, 2))
    with pytest.raises(DataError, match="`force`"):
        run(videos, tmp_path / "part1.h5", part=Part(1, 2))
    join([tmp_path / "part1.shards", tmp_path / "part2.shards"], tmp_path / "joined.h5")
    joined = FaceDataset(tmp_path / "joined.h5")
    assert joined.config == config
    np.testing.assert_array_equal(joined.mean_shape, shape.points)
    np.testing.assert_array_equal(joined.triangles, shape.triangles)
    same(joined, FaceDataset(first[0]), "b")
    assert not [finding for finding in verify(tmp_path / "joined.h5") if finding.level == "error"]


def test_what_cannot_be(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="leave out `part`"):
        run(videos, tmp_path / "part.h5", part=Part(1, 2))
    (tmp_path / "none").mkdir()
    shutil.copy(videos / "c.mp4", tmp_path / "none")
    with pytest.raises(DataError, match="none of 1 videos has a usable face"):
        run(tmp_path / "none", tmp_path / "none.h5")


def test_landmarks_in_crop_pixels(first: tuple[Path, list[str]]) -> None:
    """In every face the landmarks lie where they are said to lie: the crop is the box of the mean shape."""
    data = FaceDataset(first[0])
    points = data.landmarks_in_crop
    assert points.shape == (68, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    assert (high - low).max() == pytest.approx(48 * (1 - 2 * data.config.margin))
    np.testing.assert_allclose((low + high) / 2, (23.5, 23.5))
    # The nostrils are dark and the skin around them is not: a check on pixels, in the mean face.
    mean = np.concatenate([data[name].frames for name in ("a", "b")]).mean(axis=0)
    eyes = points[36:48].mean(axis=0), points[27:31].mean(axis=0)
    assert (
        mean[tuple(np.round(points[36:42].mean(axis=0)).astype(int)[::-1])]
        < mean[tuple(np.round(eyes[1]).astype(int)[::-1])]
    )
