"""Label files of every kind, and whom their lines are about."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_pipeline.batch.label_table import LabelTable, read_labels
from nemo_pipeline.batch.labels import LabelledVideo, find_labels, match_labels
from nemo_pipeline.errors import DataError, NemoError

FILES = (
    "UvA-NEMO Smile Database\n\nFile Details\n\nfilename\tsubject code\tgender\tage\tsmile type\n"
    "001_deliberate_smile_2.mp4\t001\tfemale\t23\tdeliberate\n"
    "001_spontaneous_smile_1.mp4\t001\tfemale\t23\tspontaneous\r\n"
    "400_deliberate_smile_1.mp4\t400\tmale\t8\tdeliberate\n"
)
SUBJECTS = "UvA-NEMO\n\nSubject Details\n\nsubject code\tgender\tage\n001\tfemale\t23\n400\tmale\t8\n"


def videos(*files):
    return [LabelledVideo(f, f.rsplit("/", 1)[-1].rsplit(".", 1)[0], (f.rsplit(".", 1)[0],)) for f in files]


def write(tmp_path, text, name="labels.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_file_details_of_the_database(tmp_path):
    table = read_labels(write(tmp_path, FILES, "UvA-NEMO_Smile_Database_File_Details.txt"))
    assert table.by_video["001_deliberate_smile_2.mp4"] == {
        "subject": "001",
        "gender": "female",
        "age": 23.0,
        "condition": "posed",
        "expression": "smile",
    }
    assert table.by_video["001_spontaneous_smile_1.mp4"]["condition"] == "spontaneous"
    assert len(table.by_video) == 3


def test_subject_details_of_the_database(tmp_path):
    table = read_labels(write(tmp_path, SUBJECTS, "UvA-NEMO_Smile_Database_Subject_Details.txt"))
    matched = match_labels(table, videos("001_deliberate_smile_2.mp4", "a/400_x.mp4", "other.mp4"))
    assert matched.labels["001_deliberate_smile_2.mp4"] == {"subject": "001", "gender": "female", "age": 23.0}
    assert matched.labels["a/400_x.mp4"]["age"] == 8.0
    assert matched.unlabelled == ("other.mp4",)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_of_every_make(tmp_path, delimiter, encoding):
    rows = [
        ["Video", "Subject", "AGE", "sex", "condition", "fold", "notes"],
        ["ä.mp4", "s1", "30.5", "F", "Deliberate", "3", "x"],
    ]
    text = "\r\n".join(delimiter.join(row) for row in rows) + "\r\n"
    table = read_labels(write(tmp_path, text, encoding=encoding))
    assert table.by_video["ä.mp4"] == {
        "subject": "s1",
        "age": 30.5,
        "gender": "female",
        "condition": "posed",
        "fold": 3,
    }


def test_unknown_values_are_left_out(tmp_path):
    table = read_labels(write(tmp_path, "video,subject,age,fold\na.mp4,,NA,\n"))
    assert table.by_video["a.mp4"] == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("name,years\na,3\n", "must name `video`"),
        ("video,age\na.mp4,old\n", "line 2: age is 'old'"),
        ("video,age\na.mp4,-3\n", "between 0 and 130"),
        ("video,age\na.mp4,nan1\n", "age is"),
        ("video,age\na.mp4,3,4\n", "line 2: 3 columns where the header has 2"),
        ("video,age\na.mp4,3\na.mp4,4\n", "line 3: 'a.mp4' is there a second time"),
        ("video,age\n,3\n", "`video` is empty"),
        ("video,fold\na.mp4,1.5\n", "fold is"),
        ("video,age,age\na,1,2\n", "two columns"),
        ("video,age,synthetic\na,1,maybe\n", "synthetic is"),
    ],
)
def test_bad_files_name_the_line(tmp_path, text, complaint):
    with pytest.raises(DataError, match=complaint):
        read_labels(write(tmp_path, text))


def test_a_binary_or_missing_file(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\x89HDF\r\n\x1a\n\0\0\0")
    with pytest.raises(DataError, match="not a text file"):
        read_labels(tmp_path / "x.csv")
    with pytest.raises(DataError, match="does not exist"):
        read_labels(tmp_path / "none.csv")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_table_or_a_sentence(data):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.csv"
        path.write_bytes(data)
        try:
            assert isinstance(read_labels(path), LabelTable)
        except NemoError as error:
            assert str(error)


def test_a_column_of_the_labels_own_name_wins_over_another_spelling(tmp_path):
    read = read_labels(write(tmp_path, "id,video,age,sex,gender\n7,a.mp4,30,x,m\n"))
    assert read.by_video == {"a.mp4": {"age": 30.0, "gender": "male"}}
    with pytest.raises(DataError, match="two columns for video"):
        read_labels(write(tmp_path, "id,file,age\n7,a.mp4,30\n"))


def table(**by_video):
    return LabelTable("test", {name.replace("__", "/"): labels for name, labels in by_video.items()})


def test_a_name_means_path_then_name_then_stem():
    found = videos("a/same.mp4", "b/same.mp4", "b/one.avi", "Upper.MP4")
    labels = {
        "a/same.mp4": {"age": 1.0},
        "one": {"age": 2.0},
        "upper.mp4": {"age": 3.0},
        "same": {"age": 9.0},
        "elsewhere/b/one.avi": {"age": 2.0},
        "ghost.mp4": {"age": 4.0},
    }
    matched = match_labels(LabelTable("test", labels), found)
    assert matched.labels == {
        "a/same.mp4": {"age": 1.0},
        "b/one.avi": {"age": 2.0},
        "Upper.MP4": {"age": 3.0},
    }
    assert matched.ambiguous == ("same",)
    assert matched.unused == ("ghost.mp4",)
    assert matched.unlabelled == ("b/same.mp4",)


def test_a_second_person_gets_no_label_of_the_clip():
    found = [LabelledVideo("clip.mp4", "clip", ("clip#1", "clip#2/s1", "clip#2/s2"))]
    matched = match_labels(LabelTable("t", {"clip.mp4": {"age": 30.0}, "clip#2/s1": {"age": 7.0}}), found)
    assert matched.for_row("clip.mp4", "clip#1", 1) == {"age": 30.0}
    assert matched.for_row("clip.mp4", "clip#2/s1", 2) == {"age": 7.0}
    assert matched.for_row("clip.mp4", "clip#2/s2", 2) == {}
    assert matched.for_row("clip.mp4", "clip#10", 10) == {}


def test_segments_share_the_labels_of_their_clip():
    found = [LabelledVideo("a/s1.mp4", "a/s1.mp4", ("a/s1.mp4/s1", "a/s1.mp4/s2"))]
    matched = match_labels(LabelTable("t", {"a/s1.mp4": {"age": 30.0}}), found)
    assert matched.for_row("a/s1.mp4", "a/s1.mp4/s2", 0) == {"age": 30.0}


def test_synthetic_mark(tmp_path):
    read = read_labels(write(tmp_path, "video,age,synthetic\na.mp4,3,True\nb.mp4,4,false\n"))
    assert match_labels(read, videos("a.mp4")).synthetic
    assert not match_labels(read, videos("b.mp4")).synthetic


def test_a_details_file_beside_the_videos_is_found(tmp_path):
    inside = tmp_path / "videos"
    inside.mkdir()
    assert find_labels([inside]) is None
    write(tmp_path, SUBJECTS, "UvA-NEMO_Smile_Database_Subject_Details.txt")
    assert find_labels([inside]).name.endswith("Subject_Details.txt")
    write(tmp_path, FILES, "UvA-NEMO_Smile_Database_File_Details.txt")
    assert find_labels([inside]).name.endswith("File_Details.txt")
    write(tmp_path, "video,age\n")  # labels.csv one folder up is not taken
    assert find_labels([inside]).name.endswith("File_Details.txt")


def test_ages_are_numbers(tmp_path):
    read = read_labels(write(tmp_path, 'video;age\na.mp4;"23,5"\n'))
    assert math.isclose(read.by_video["a.mp4"]["age"], 23.5)


def test_a_path_of_another_folder_gives_nobody_a_label():
    found = videos("S001/smile.mp4", "S003/neutral.avi")
    labels = {
        "S001/smile.mp4": {"age": 30.0},
        "S002/smile.mp4": {"age": 71.0},
        "C:\\data\\S003\\neutral.avi": {"age": 55.0},
    }
    matched = match_labels(LabelTable("test", labels), found)
    assert matched.labels == {"S001/smile.mp4": {"age": 30.0}, "S003/neutral.avi": {"age": 55.0}}
    assert matched.unused == ("S002/smile.mp4",)
    # From inside one folder both paths could be it: neither is believed.
    matched = match_labels(LabelTable("test", labels), videos("smile.mp4"))
    assert not matched.labels and set(matched.ambiguous) == {"S001/smile.mp4", "S002/smile.mp4"}


def test_two_names_for_one_video():
    labels = {"u.mp4": {"age": 30.0}, "u": {"age": 77.0}}
    matched = match_labels(LabelTable("test", labels), videos("u.mp4"))
    assert matched.labels == {"u.mp4": {"age": 30.0}} and matched.unused == ("u",)


def test_a_table_with_tabs_may_begin_with_any_column(tmp_path):
    rows = ["subject\tvideo\tage", *(f"p{i}\tv{i}.mp4\t{20 + i}" for i in range(8))]
    read = read_labels(write(tmp_path, "\n".join(rows) + "\n", "l.tsv"))
    assert read.by_video["v0.mp4"] == {"subject": "p0", "age": 20.0} and len(read.by_video) == 8
