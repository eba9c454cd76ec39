"""A run from videos to out.h5: what it holds, and what a second run does."""

from __future__ import annotations

import json
import shutil
import threading

import h5py
import numpy as np
import pytest

from nemo_pipeline import prep_video
from nemo_pipeline.batch import plan as plan_module
from nemo_pipeline.batch import run as run_module
from nemo_pipeline.batch.join import join
from nemo_pipeline.batch.label_table import LabelTable, read_labels
from nemo_pipeline.batch.parts import Part, what_is_missing
from nemo_pipeline.config import ALGORITHM_VERSION, PrepConfig
from nemo_pipeline.errors import Busy, DataError, OutputError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.pack import pack
from nemo_pipeline.store.shard import read_shards
from nemo_pipeline.store.verify import verify
from tests.support.runs import CONFIG, arrays, copy_of, run, write_clip


def planned(events):
    (event,) = [event for event in events if event.kind == "planned"]
    return event.n, event.total


def test_arrays_are_those_of_the_pipeline(first, clips):
    summary, output = first
    data = FaceDataset(output)
    assert list(data) == ["clip0", "clip1", "clip2"]
    assert summary.counts == {"ok": 3}
    for video in data.values():
        alone = prep_video(clips / video.file, CONFIG)
        assert video.length == len(alone) == video.n_decoded
        for name in data.fields:
            np.testing.assert_array_equal(video.read(name), alone.read(name), err_msg=name)


def test_a_second_run_does_nothing(first, clips, tmp_path):
    output = copy_of(first, tmp_path)
    before = arrays(output)
    events = []
    summary = run([clips], output, events=events)
    assert planned(events) == (3, 0)
    assert summary.done_now == 0
    assert arrays(output) == before
    assert len(read_shards(tmp_path / "out.shards")) == 1


def test_times_of_change_are_kept_and_spare_hashing(first, clips, tmp_path, monkeypatch):
    output = copy_of(first, tmp_path)
    new, old = 10**18, -(10**18)  # as what the clips count, whenever they were made
    for settled, hashed in ((new, 3), (old, 3), (old, 0), (old, 0)):  # the second still knows no times
        monkeypatch.setattr(plan_module, "SETTLED_NS", settled)
        events = []
        run([clips], output, events=events)
        assert sum(event.kind == "checking" for event in events) == hashed
    assert (FaceDataset(output).layout["modified"] > 0).all()
    run([clips / "clip0.mp4"], output)  # the others stay, with their times
    assert (FaceDataset(output).layout["modified"] > 0).all()


def test_the_same_numbers_whatever_the_company(first, clips, tmp_path):
    expected = arrays(first[1])
    two = tmp_path / "two.h5"
    run([clips / "clip2.mp4", clips / "clip0.mp4", clips / "clip1.mp4"], two, workers=2)
    assert arrays(two) == expected
    alone = tmp_path / "alone.h5"
    run([clips / "clip1.mp4"], alone)
    assert arrays(alone) == {"clip1.mp4 clip1": expected["clip1.mp4 clip1"]}


def test_added_changed_and_renamed_clips(first, clips, tmp_path):
    output = copy_of(first, tmp_path)
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    expected = arrays(output)
    write_clip(folder / "a.mp4", seed=7)  # first in order
    (folder / "clip0.mp4").rename(folder / "renamed.mp4")
    write_clip(folder / "clip2.mp4", seed=9, frames=9)
    events = []
    run([folder], output, events=events)
    assert planned(events) == (2, 2)
    found = arrays(output)
    assert list(found) == ["a.mp4 a", "clip1.mp4 clip1", "clip2.mp4 clip2", "renamed.mp4 renamed"]
    assert found["clip1.mp4 clip1"] == expected["clip1.mp4 clip1"]
    assert found["renamed.mp4 renamed"] == expected["clip0.mp4 clip0"]
    assert found["clip2.mp4 clip2"] != expected["clip2.mp4 clip2"]
    data = FaceDataset(output)
    assert data["clip2"].length == 9
    # Programs that know nothing of us read the same, though parts of the older shard are not used any more.
    with h5py.File(output) as file:
        for video in data.values():
            for name in data.fields:
                np.testing.assert_array_equal(
                    file[name][video.start : video.start + video.length], video.read(name)
                )


def test_other_settings_are_refused_and_forced(first, clips, tmp_path):
    output = copy_of(first, tmp_path)
    other = PrepConfig(size=32, mesh=False)
    with pytest.raises(DataError, match="size 48 there, 32 here"):
        run([clips], output, config=other)
    assert FaceDataset(output).size == 48
    # Two settings cannot be in one file, and what is not done again must not be lost.
    with pytest.raises(
        DataError, match=r"size 48 there, 32 here.*2 videos not among the inputs \(clip1.mp4, clip2"
    ):
        run([clips / "clip0.mp4"], output, config=other, force=True)
    assert len(FaceDataset(output)) == 3
    run([clips / "clip0.mp4"], output, config=other, force=True, prune=True)
    assert FaceDataset(output).size == 32
    assert len(read_shards(tmp_path / "out.shards")) == 1  # what was replaced is gone


def test_a_forced_run_that_was_stopped_goes_on(first, clips, tmp_path):
    output = copy_of(first, tmp_path)
    expected = arrays(output)

    def stop(event):
        if event.kind == "video":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([clips], output, force=True, on_event=stop)
    assert arrays(output) == expected  # still the old one
    events = []
    run([clips], output, force=True, events=events)
    assert planned(events) == (1, 2)
    assert arrays(output) == expected
    assert len(read_shards(tmp_path / "out.shards")) == 1


def test_an_output_that_is_refused_leaves_no_folder(first, clips, tmp_path):
    (tmp_path / "notes.h5").write_text("my notes")
    with pytest.raises(OutputError, match="Remove or rename it"):
        run([clips], tmp_path / "notes.h5")
    pack(first[1], tmp_path / "one.h5")
    with pytest.raises(OutputError, match="is one packed file"):
        run([clips], tmp_path / "one.h5")
    with pytest.raises(DataError, match="no finished part"):
        join([], tmp_path / "joined.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.h5", "one.h5"]


def test_a_second_run_at_the_same_time_is_refused(clips, tmp_path):
    output = tmp_path / "out.h5"
    seen = []

    def second(event):
        if event.kind == "planned" and not seen:
            with pytest.raises(Busy, match="another `nemo prep` is writing"):
                run([clips], output)
            seen.append(event)

    thread_error = []

    def elsewhere(event):
        # Another thread, since a lock may be taken twice by one that holds it.
        thread = threading.Thread(target=lambda: thread_error.append(_error(second, event)))
        thread.start()
        thread.join()

    run([clips / "clip0.mp4"], output, on_event=elsewhere)
    assert seen and not any(thread_error)


def _error(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return error
    return None


def test_bad_videos_are_rows_with_a_reason(clips, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clips / "clip0.mp4", folder / "good.mp4")
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    summary = run([folder], tmp_path / "out.h5")
    data = FaceDataset(tmp_path / "out.h5")
    assert dict(zip(data.videos["id"], data.videos["status"], strict=True)) == {
        "empty": "unreadable",
        "good": "ok",
        "lost": "unreadable",
        "text": "decode_error",
    }
    assert all(data[name].message for name in data.failed)
    assert summary.n_failed == 3 and summary.n_usable == 1
    events = []
    shutil.copy(clips / "clip1.mp4", tmp_path / "nowhere.mp4")
    run([folder], tmp_path / "out.h5", events=events)
    # Unreadable ones are tried again; a file that is not a video keeps its status.
    assert planned(events) == (2, 2)
    assert FaceDataset(tmp_path / "out.h5")["lost"].status == "ok"


def test_a_file_that_vanishes_in_mid_run(clips, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(clips, folder)

    def vanish(event):
        if event.kind == "video" and event.file == "clip0.mp4":
            (folder / "clip2.mp4").unlink(missing_ok=True)

    run([folder], tmp_path / "out.h5", on_event=vanish)
    data = FaceDataset(tmp_path / "out.h5")
    assert data["clip2"].status == "unreadable" and "not there" in data["clip2"].message
    assert data["clip1"].status == "ok"


def test_nothing_usable_is_still_a_file(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    summary = run([tmp_path / "text.mp4"], tmp_path / "out.h5")
    data = FaceDataset(tmp_path / "out.h5")
    assert summary.n_usable == 0 and data.usable == [] and len(data.rows) == 1


def test_labels_survive_a_rerun_and_do_not_cause_one(first, clips, tmp_path):
    output = copy_of(first, tmp_path)
    table = tmp_path / "l.csv"
    table.write_text("video,subject,age,synthetic\nclip0.mp4,s1,30,true\nclip1,s2,41.5,true\n")
    events = []
    summary = run([clips], output, labels=read_labels(table), events=events)
    assert planned(events) == (3, 0)
    assert summary.matched.unlabelled == ("clip2.mp4",)
    run([clips], output)
    data = FaceDataset(output)
    assert data["clip1"].age == 41.5 and data["clip0"].subject == "s1" and np.isnan(data["clip2"].age)
    assert data.synthetic


def test_parts_joined_equal_one_run(first, clips, tmp_path):
    expected = arrays(first[1])
    output = tmp_path / "out.h5"
    with pytest.raises(DataError, match="no finished part"):
        join([], output)
    for number in (2, 1):
        summary = run([clips], output, part=Part(number, 2))
        assert summary.part is not None and not output.exists()
    join([], output)
    assert arrays(output) == expected
    # From outputs of their own, as on local disks.
    for number in (1, 2):
        run([clips], tmp_path / f"p{number}.h5", part=Part(number, 2))
    join([tmp_path / "p1.h5", tmp_path / "p2.h5"], tmp_path / "all.h5")
    assert arrays(tmp_path / "all.h5") == expected
    run([clips / "clip0.mp4"], tmp_path / "q.h5", config=PrepConfig(size=32))
    with pytest.raises(DataError, match="different settings"):
        join([tmp_path / "p1.h5", tmp_path / "q.h5"], tmp_path / "never.h5")


def test_a_part_that_was_never_done_is_named(clips, tmp_path):
    output = tmp_path / "out.h5"
    for number in (1, 3):
        run([clips], output, part=Part(number, 3))
    assert "1 part was not done (2/3)" in join([], output).missing and len(FaceDataset(output)) == 2
    run([clips], tmp_path / "two.h5", part=Part(2, 3))  # on another machine
    assert join([tmp_path / "two.h5"], output).missing == "" and len(FaceDataset(output)) == 3
    # One set of videos grew between two parts: one of its videos may be in neither.
    run([clips], tmp_path / "p.h5", part=Part(1, 2))
    run([clips / "clip0.mp4", clips / "clip1.mp4"], tmp_path / "p.h5", part=Part(2, 2))
    assert "made of 2 and 3 videos" in join([], tmp_path / "p.h5").missing
    run([clips], tmp_path / "p.h5")  # a whole run has them all
    assert join([], tmp_path / "p.h5").missing == "" and len(FaceDataset(tmp_path / "p.h5")) == 3


def test_one_complete_division_is_enough():
    done = {Part(k, 3): 7 for k in (1, 2, 3)} | {Part(2, 20): 7}
    assert what_is_missing(done) == what_is_missing({}) == ""
    assert "19 parts were not done (1/20, 3/20," in what_is_missing({Part(2, 20): 7})


@pytest.mark.parametrize("count", [0, 1, 5, 17])
@pytest.mark.parametrize("of", [1, 3, 8])
def test_parts_cover_all_once(count, of):
    taken = [i for k in range(1, of + 1) for i in Part(k, of).share(count)]
    assert taken == list(range(count))


def test_the_output_must_be_possible(clips, tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        run([clips], tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        run([clips], tmp_path / "none" / "out.h5")
    (tmp_path / "other.h5").write_text("mine")
    with pytest.raises(OutputError, match=r"other\.h5"):
        run([clips], tmp_path / "other.h5", force=True)
    assert (tmp_path / "other.h5").read_text() == "mine"


def test_a_damaged_shard_is_named(first, clips, tmp_path):
    output = copy_of(first, tmp_path)
    (shard,) = read_shards(tmp_path / "out.shards")
    shard.path.write_bytes(shard.path.read_bytes()[:5000])
    with pytest.raises(OutputError, match=shard.name):
        run([clips], output)
    shard.path.unlink()
    events = []
    run([clips], output, events=events)
    assert planned(events) == (0, 3)
    assert arrays(output) == arrays(first[1])


def test_output_through_a_link_goes_to_the_real_place(first, clips, tmp_path):
    (tmp_path / "real").mkdir()
    output = copy_of(first, tmp_path / "real")
    (tmp_path / "link.h5").symlink_to(output)
    events = []
    run([clips], tmp_path / "link.h5", events=events)
    assert planned(events) == (3, 0)
    assert (tmp_path / "link.h5").is_symlink()


def test_pieces_carry_no_settings_of_others(clips, tmp_path):
    output = tmp_path / "out.h5"

    def stop(event):
        if event.kind == "video":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([clips], output, on_event=stop)
    (staged,) = (tmp_path / "out.shards" / ".work").glob("*.json")
    assert json.loads(staged.read_text())["fingerprint"] == CONFIG.fingerprint()
    with pytest.raises(DataError, match="begun with other settings"):
        run([clips], output, config=PrepConfig(size=32))


def test_versions_of_the_method_are_not_mixed(clips, tmp_path, monkeypatch):
    output = tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        for module in (run_module, plan_module):  # as an earlier nemo would have written it
            patch.setattr(module, "ALGORITHM_VERSION", 1)
        run([clips / "clip0.mp4"], output)
    before = arrays(output), [shard.uuid for shard in read_shards(tmp_path / "out.shards")]
    table = LabelTable("t", {"clip0": {"age": 30.0}})
    run([clips / "clip0.mp4"], output, labels=table)  # nothing to do: that is not a mixture
    data = FaceDataset(output)
    assert data.config.algorithm == 1 and data["clip0"].age == 30
    assert verify(output) and not [finding for finding in verify(output) if finding.level == "error"]
    with pytest.raises(DataError, match=r"version 1 .* 1 video \(clip1.mp4\) cannot be added"):
        run([clips / "clip0.mp4", clips / "clip1.mp4"], output)
    with pytest.raises(
        DataError, match=r"other settings \(size 48 there, 32 here; version of the method 1 there"
    ):
        run([clips / "clip0.mp4"], output, config=PrepConfig(size=32))
    assert (arrays(output), [shard.uuid for shard in read_shards(tmp_path / "out.shards")]) == before
    run([clips / "clip0.mp4", clips / "clip1.mp4"], output, force=True)
    assert FaceDataset(output).config.algorithm == ALGORITHM_VERSION
