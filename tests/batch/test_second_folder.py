"""What an output holds stays when other videos are prepared into it; `--prune` drops it after naming it."""

from __future__ import annotations

import shutil

import pytest

from nemo_cli.prep_report import report_labels
from nemo_pipeline.batch.discover import discover
from nemo_pipeline.batch.label_table import read_labels
from nemo_pipeline.batch.run import PrepInputs, preview
from nemo_pipeline.errors import DataError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.verify import verify
from tests.support.runs import CONFIG, arrays, copy_of, run, write_clip

LABELS = "video,subject,age\nclip0.mp4,s0,20\nclip1.mp4,s1,41\nclip2.mp4,s2,62\n"


@pytest.fixture
def held(first, clips, tmp_path):
    """Three labelled videos in out.h5, and a folder with another one."""
    output = copy_of(first, tmp_path)
    (tmp_path / "l.csv").write_text(LABELS)
    run([clips], output, labels=read_labels(tmp_path / "l.csv"))
    write_clip(tmp_path / "day2" / "another.mp4", seed=5, frames=8)
    return output


def ages(output):
    return {video.id: video.age for video in FaceDataset(output).values()}


def test_a_second_folder_is_added(held, clips, tmp_path):
    before = arrays(held)
    events = []
    summary = run([tmp_path / "day2"], held, events=events)
    after = arrays(held)
    assert list(after) == ["another.mp4 another", *before] and after.items() >= before.items()
    assert ages(held) == {
        "another": pytest.approx(float("nan"), nan_ok=True),
        "clip0": 20,
        "clip1": 41,
        "clip2": 62,
    }
    assert [row["id"] for row in summary.inputs] == ["another"] and summary.counts == {"ok": 4}
    assert any(
        "Keeping 3 videos of out.h5 that are not among the inputs (`prune`" in event.text for event in events
    )
    assert not [finding for finding in verify(held) if finding.level == "error"]
    # As one run over both folders has it.
    run([tmp_path / "day2", clips], tmp_path / "both.h5")
    assert arrays(tmp_path / "both.h5") == after
    # A filter or a limit names fewer inputs; nothing else.
    run([clips / "clip1.mp4"], held)
    assert arrays(held) == after


def test_labels_of_the_added_videos_complain_about_no_others(held, tmp_path, capsys):
    (tmp_path / "day2.csv").write_text("video,subject,age\nanother.mp4,s9,33\n")
    summary = run([tmp_path / "day2"], held, labels=read_labels(tmp_path / "day2.csv"))
    report_labels(summary.matched, held)
    assert "without a label" not in capsys.readouterr().err
    assert ages(held) == {
        "another": 33,
        "clip0": 20,
        "clip1": 41,
        "clip2": 62,
    }


def test_prune_drops_after_naming_and_labels_come_back(held, clips, tmp_path):
    expected = arrays(held)
    events = []
    run([clips / "clip1.mp4"], held, prune=True, events=events)
    assert list(arrays(held)) == ["clip1.mp4 clip1"]
    names = [(event.kind, event.text) for event in events if "`prune`" in event.text]
    assert (
        names[0][0] == "note"
        and "drops 2 videos of out.h5 that are not among the inputs: clip0.mp4, clip2.mp4" in names[0][1]
    )
    assert [event.kind for event in events].index("note") < [event.kind for event in events].index("planned")
    run([clips], held)
    assert arrays(held) == expected and ages(held) == {"clip0": 20, "clip1": 41, "clip2": 62}


def test_only_unusable_inputs_are_a_failure_though_others_stay(held, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    summary = run([tmp_path / "text.mp4"], held)
    assert summary.n_usable == 0 and summary.n_failed == 1 and summary.counts == {"ok": 3, "decode_error": 1}


def test_forced_work_on_some_keeps_the_others(held, clips):
    before = arrays(held)
    run([clips / "clip1.mp4"], held, force=True)
    assert arrays(held) == before and ages(held)["clip0"] == 20
    assert not [finding for finding in verify(held) if finding.level == "error"]


def test_a_renamed_video_is_not_there_twice(held, clips, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(clips / "clip1.mp4", tmp_path / "new" / "renamed.mp4")
    for force in (False, True):
        run([tmp_path / "new"], held, force=force)
        assert ages(held) == {"clip0": 20, "clip2": 62, "renamed": 41}


def test_another_days_clip_of_the_same_name_takes_no_place(held, clips, tmp_path):
    before = arrays(held)
    write_clip(tmp_path / "day3" / "clip0.mp4", seed=8, frames=9)
    with pytest.raises(DataError, match=r"day3 has 1 video with the name of a video in .* \(clip0.mp4\)"):
        run([tmp_path / "day3"], held)
    with pytest.raises(DataError, match="name all folders in one command"):
        preview(PrepInputs(discover([tmp_path / "day3"]).videos), held, CONFIG)
    assert arrays(held) == before
    # Both folders at once, as the sentence says: the folder tells them apart, and labels follow the content.
    run([clips, tmp_path / "day3"], held)
    names = sorted(ages(held))
    assert len(names) == 4 and {age for age in ages(held).values() if age == age} == {20, 41, 62}
    run([tmp_path / "day3"], tmp_path / "new.h5")
    write_clip(tmp_path / "day3" / "clip0.mp4", seed=9, frames=9)
    run([tmp_path / "day3"], tmp_path / "new.h5", force=True)  # a new version
    assert len(FaceDataset(tmp_path / "new.h5")) == 1


def test_what_is_kept_needs_its_shard(held, clips, tmp_path):
    for shard in (tmp_path / "out.shards").glob("*.h5"):
        shard.unlink()
    with pytest.raises(DataError, match=r"3 videos .* not among the inputs .* shards are missing"):
        run([tmp_path / "day2"], held)
    run([tmp_path / "day2", clips], held)
    assert len(arrays(held)) == 4
