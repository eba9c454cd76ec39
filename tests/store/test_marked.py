"""Marks: their file, and a prepared file without what they leave out, against plain loops over the whole file."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from nemo_pipeline.errors import DataError
from nemo_pipeline.marks import Mark, add_mark, marks_beside, read_marks, remove_mark, write_marks
from nemo_pipeline.status import Status
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.marked import MarkedFaces, open_marked
from nemo_pipeline.store.pack import pack
from tests.support.smiling import HOSTILE, smiling_file

HEAD = "video,start,stop,reason,who,when\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared file that nobody changes; nothing is marked in it."""
    return smiling_file(tmp_path_factory.mktemp("marked"))


def written(folder, text):
    path = folder / "m.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mark_is_read_as_it_was_added_whatever_its_names_hold(tmp_path):
    path = tmp_path / "smiles.marks.csv"
    marks = [
        Mark(name, 3, 9, 'a "reason", and\nmore', f"=who {name}", "2026-11-30T10:00:00Z") for name in HOSTILE
    ]
    marks += [Mark("whole", reason="a\rb"), Mark("to\r the end", 5), Mark("from the start", None, 5)]
    for mark in marks:
        add_mark(path, mark)
    assert read_marks(path) == marks and path.stat().st_mode & 0o777 == 0o600
    assert [mark.whole for mark in marks[-3:]] == [True, False, False]
    assert remove_mark(path, marks[1]) and not remove_mark(path, marks[1])
    assert read_marks(path) == [marks[0], *marks[2:]]
    write_marks(tmp_path / "again.csv", read_marks(path))
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_columns_of_others_and_the_order_of_columns_stay(tmp_path):
    path = written(tmp_path, "\ufeffnote;Stop;Video;start\nmine;9;a;3\n\nvideo?;;b;\n")
    add_mark(path, Mark("c", 1, 2, "why"))
    lines = path.read_text().splitlines()
    assert lines[0] == "note,stop,video,start,reason,who,when" and lines[1] == "mine,9,a,3,,,"
    assert read_marks(path) == [Mark("a", 3, 9), Mark("b"), Mark("c", 1, 2, "why")]


def test_two_files_may_be_put_together(tmp_path):
    path = written(tmp_path, HEAD + "a,1,2,x,kim,\n" + HEAD + "a,1.0,3,x,lee,\n")
    assert read_marks(path) == [Mark("a", 1, 2, "x", "kim"), Mark("a", 1, 3, "x", "lee")]
    assert [mark.line for mark in read_marks(path)] == [2, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line lacks"),
        ("video,start,stop,start\n", "its first line names a column twice"),
        ("video,start\na,1\n", "lacks the column stop"),
        (HEAD + "a,1,2,,,\na,x,2,,,\n", "line 3: start is 'x'; it is the number of a frame"),
        (HEAD + "a,1,-2,,,\n", "line 2: stop is '-2'"),
        (HEAD + "a,9,2,,,\n", "line 2: stop (2) is before start (9)"),
        (HEAD + ",9,,,,\n", "line 2: it names no video"),
        (HEAD + "a,1\n", "line 2: 2 columns where the header has 6"),
        (HEAD + "a,1,2,,,,\n", "line 2: 7 columns where the header has 6"),
        (HEAD + 'a,1,2,"x\n', "line 2: it is not CSV"),
    ],
)
def test_what_is_no_file_of_marks_is_said_with_its_line_and_not_changed(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_marks(path)
    assert said in str(error.value) and str(path) in str(error.value)
    with pytest.raises(DataError):
        add_mark(path, Mark("a"))
    assert path.read_text() == text


def test_a_pipe_or_a_folder_is_no_file_of_marks(tmp_path):
    for path in (tmp_path, tmp_path / "missing.csv"):
        with pytest.raises(DataError):
            read_marks(path)


def add_many(path, who):
    for number in range(20):
        add_mark(path, Mark("a", number, number, who=who))


def test_two_people_who_mark_at_once_lose_nothing(tmp_path):
    path = tmp_path / "m.csv"
    context = multiprocessing.get_context("spawn")
    people = [context.Process(target=add_many, args=(path, who)) for who in ("kim", "lee")]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert [one.exitcode for one in people] == [0, 0]
    found = read_marks(path)
    for who in ("kim", "lee"):
        assert [mark.start for mark in found if mark.who == who] == list(range(20))


MARKS = [
    Mark("gaps", 5, 12, "hand"),
    Mark("gaps", 11, 14, "hand"),
    Mark("small", None, 9),
    Mark("turned", reason="wrong person"),
    Mark("many", 3, 56, "blurred"),  # 6 frames are left, fewer than 7
    Mark("cut.mp4", 50),
    Mark("nobody"),
    Mark("elsewhere", 1, 2),
]


def test_it_is_the_file_without_what_was_marked(data):
    whole, marked = FaceDataset(data), MarkedFaces(data, MARKS)
    expected = {
        "gaps": [*range(5), *range(15, 60)],
        "small": range(10, 60),
        "cut": range(50),
        "turned": [],
        "many": [],
    }
    for row in whole.rows:
        name = whole.videos["id"][row]
        index = whole.read(row, "frame_index")
        kept = [i for i in range(len(index)) if index[i] in expected.get(name, index)]
        assert marked.videos["length"][row] == len(kept) == len(marked[row])
        for field in whole.fields:
            np.testing.assert_array_equal(marked.read(row, field), whole.read(row, field)[kept])
            np.testing.assert_array_equal(marked.read(row, field, 3, 9), whole.read(row, field)[kept][3:9])
        assert marked[row].n_interpolated == (~whole.read(row, "tracked")[kept]).sum()
        assert marked[row].start == sum(marked.videos["length"][:row])
    assert marked["turned"].status is Status.EXCLUDED and "wrong person" in marked["turned"].message
    assert marked["nobody"].status == "no_face"  # it had no frames
    assert set(whole.ids) - set(marked.ids) == {"turned", "many"} and {"turned", "many"} <= set(marked.failed)
    found = marked.exclusions
    assert (found.videos, found.cut, found.frames) == (2, 3, 10 + 10 + 10)
    assert found.reasons == {"hand": 2, "": 2, "wrong person": 1, "blurred": 1}
    assert found.unknown == ("elsewhere",) and found.counts() == "2 videos and 30 frames of 3 others"
    assert marked.in_order


def test_other_marks_are_other_data_and_the_same_said_otherwise_are_not(data):
    whole = FaceDataset(data)
    assert MarkedFaces(data).uuid == whole.uuid == MarkedFaces(data, [Mark("nobody"), Mark("none")]).uuid
    one = MarkedFaces(data, [Mark("gaps", 5, 14, "x", "kim")])
    assert one.uuid == MarkedFaces(data, MARKS[:2]).uuid != whole.uuid
    assert one.uuid != MarkedFaces(data, [Mark("gaps", 5, 15)]).uuid


def test_it_reads_a_packed_file_and_in_another_process(data, tmp_path):
    packed = pack(data, tmp_path / "one.h5")
    one, other = MarkedFaces(packed or tmp_path / "one.h5", MARKS), MarkedFaces(data, MARKS)
    for name in other.ids:
        np.testing.assert_array_equal(one[name].frames, other[name].frames)
    again = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(again["gaps"].frames, other["gaps"].frames)


def test_marks_are_found_beside_the_file_also_through_a_link(tmp_path):
    data = smiling_file(tmp_path)
    assert not open_marked(data).exclusions.file and str(open_marked(data).exclusions) == ""
    add_mark(marks_beside(data), Mark("gaps", 0, 9, "hand"))
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "data.h5"
    link.symlink_to(data)
    assert len(open_marked(link)["gaps"]) == 50 and len(open_marked(data)["gaps"]) == 50
    assert len(open_marked(data, "none")["gaps"]) == 60 and len(FaceDataset(data)["gaps"]) == 60
    assert str(open_marked(data).exclusions) == (
        f"Marks: {tmp_path / 'smiles.marks.csv'} leaves out 10 frames of 1 video (hand); `marks=none` ignores it."
    )
    other = tmp_path / "other.csv"
    write_marks(other, [Mark("gaps")])
    assert "gaps" not in open_marked(data, other).ids
    with pytest.raises(DataError, match="does not exist"):
        open_marked(data, tmp_path / "missing.csv")
