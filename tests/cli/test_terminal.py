"""What people see in a terminal: whole words at every width, few lines, nothing twice."""

from __future__ import annotations

import gc
import io
import json
import logging
import subprocess
import sys

import pytest
from click.testing import CliRunner
from tornado.util import TimeoutError as TornadoTimeout

from nemo_cli.console import _Console, new_table, panel, styled
from nemo_cli.main import main
from nemo_cli.predict_output import Answer, print_answer
from nemo_cli.progress import _used
from nemo_cli.train_progress import balance_table
from nemo_pipeline.batch.cluster import RunOptions, _client
from nemo_pipeline.store.facetrack import FaceTrack
from nemo_pipeline.view.quality_flags import Reason

SENTENCE = "The file cannot be opened as a video (Invalid data found when processing input); copy it again."
IDS = ["001_deliberate_smile_2", "participant_0002_session_2_spontaneous_smile_take_03", "a"]


def printed(thing, width, **options):
    file = io.StringIO()
    _Console(file=file, force_terminal=True, color_system=None, width=width, highlight=False).print(
        thing, **options
    )
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("sentences", [True, False])
def test_words_are_whole_in_tables_panels_and_lines(width, sentences):
    rows = [(name, "decode_error", 10, SENTENCE if sentences else "") for name in IDS]
    table = printed(
        new_table("", ["video", "status", "interpolated", "message"], rows, right="interpolated"), width
    )
    facts = printed(panel("x", [(name[:20], SENTENCE) for name in IDS]), width)
    line = printed(styled(f"/data/{IDS[0]}/out.h5: {SENTENCE}"), width, soft_wrap=True)
    for text, words in (
        (table, IDS),
        (facts, [name[:20] for name in IDS]),
        (line, [f"/data/{IDS[0]}/out.h5:"]),
    ):
        assert max(map(len, text.splitlines())) <= width
        whole = set(text.replace("│", " ").split())
        assert whole >= set(words)
        if sentences or text != table:
            assert whole >= set(SENTENCE.split())
    assert {"video", "status", "interpolated", "message"} <= set(table.split())


def test_a_panel_that_fits_has_a_row_for_each_name():
    text = printed(
        panel("ages.csv", [("kind", "ages from `nemo predict`, 2 rows, one for each clip"), ("n", 2)]), 80
    )
    assert "│ kind  ages from" in text and len(text.splitlines()) == 4


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_that_are_indented_are_broken_between_words(width):
    for indent in ("", "  ", " " * 6):
        text = printed(styled(f"{indent}{SENTENCE}"), width, soft_wrap=True)
        assert max(map(len, text.splitlines())) <= width
        assert text.split() == SENTENCE.split()


def test_the_table_of_folds_fits_80_columns_with_whole_headings():
    line = {
        "fold": 0, "subjects": 40, "gender": {"female": 19, "male": 18, "unknown": 3}, "videos": 124, "age_min": 8,
        "age_max": 76, "age_mean": 35.2, "age_deviation": 17.1, "training_subjects": 300, "validation_subjects": 60,
    }  # fmt: skip
    for lines in ([line], [line | {"fold": k} for k in range(10)]):
        text = printed(balance_table(lines), 80)
        assert max(map(len, text.splitlines())) <= 80
        assert {"subjects", "female", "male", "unknown", "videos", "8-76", "35.2", "17.1", "valid."} <= set(
            text.split()
        )
        assert ("fold" in text.splitlines()[1]) == (len(lines) > 1)


def test_a_path_that_is_too_long_stays_in_one_piece():
    path = "/data/" + "x" * 90 + "/out.h5"
    assert path in printed(styled(f"Wrote the file {path} with all its faces."), 40, soft_wrap=True).split(
        "\n"
    )


def test_a_dry_run_beside_an_environment_is_short(tmp_path):
    for folder in (
        "env/lib/site-packages/x",
        "conda/conda-meta",
        "node_modules/y",
        "src/__pycache__",
        "papers",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    for n in range(40):
        for folder in ("env/lib/site-packages/x", "node_modules/y", "src/__pycache__", "conda"):
            (tmp_path / folder / f"{n}.mp4").write_text("")
        (tmp_path / "papers" / f"{n}.pdf").write_text("")
    (tmp_path / "one.mp4").write_text("")
    words = ["prep", str(tmp_path), str(tmp_path / "out.h5"), "--dry-run"]
    plan = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert [video["id"] for video in plan["videos"]] == ["one"]
    reasons = [item["reason"] for item in plan["left_out"]]
    assert reasons.count("a Python environment") == 2 and reasons.count("a folder of programs") == 2
    assert len(CliRunner().invoke(main, [*words, "--quiet"]).stderr.splitlines()) == 1
    shown_lines = CliRunner().invoke(main, words).stderr
    assert len(shown_lines.splitlines()) < 20 and "papers/ (40 files)" in shown_lines
    # One that is named itself is searched.
    inside = [*words[:1], str(tmp_path / "env"), *words[2:], "--json"]
    assert len(json.loads(CliRunner().invoke(main, inside).stdout)["videos"]) == 0
    (tmp_path / "env" / "mine.mp4").write_text("")
    assert len(json.loads(CliRunner().invoke(main, inside).stdout)["videos"]) == 1


def test_the_last_words_are_said_wherever_the_interrupt_came():
    """Rich counts what it is printing; an interrupt on its way leaves the count too high, and nothing more is shown."""
    code = (
        "import os, signal; from nemo_cli import console, progress\n"
        "console.err._enter_buffer()\n"
        "with progress.stop_on_signals(lambda: console.say('kept')): os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"kept\n")


def test_numbers_agree_with_their_nouns():
    assert _used(68, 70) == "68 of 70 frames" and _used(1, 1) == "1 of 1 frame"
    assert _used(140, 70) == "140 faces in 70 frames"


def test_dasks_own_time_out_is_not_printed_after_a_run(caplog):
    with _client(RunOptions(workers=1), "x", 1) as client, caplog.at_level(logging.ERROR, "asyncio"):
        loop = client.loop.asyncio_loop
        for error in (TornadoTimeout("ours"), TimeoutError("ours"), ValueError("a fault of ours")):
            future = loop.create_future()
            future.set_exception(error)
            del future
        gc.collect()
    said = [str(r.exc_info[1]) for r in caplog.records if "never retrieved" in r.getMessage()]
    # Futures of other tests may end at this moment, too.
    assert [text for text in said if "ours" in text] == ["a fault of ours"]


def test_a_note_or_doubt_is_explained_once(capsys):
    class Prediction:
        age = 30.0

    doubts = (Reason("rate", "15 frames/s", "There are only 15 frames a second."),)
    note = "means nothing for people: the model was trained on synthetic faces"
    answer = Answer(
        FaceTrack({}, n_decoded=70, file="a.mp4"),
        Prediction(),
        "ok",
        "",
        None,
        0.9,
        (note,),
        doubts,
        True,
        70,
    )
    said: set[str] = set()
    for _ in range(3):
        print_answer(answer, False, said)
    out, err = capsys.readouterr()
    assert out.count("trained on synthetic faces") == 1 and out.count("means nothing for people") == 3
    assert err.count("There are only 15") == 1 and out.count("check the track: 15 frames/s") == 2
