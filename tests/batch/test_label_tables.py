"""Label files as people and spreadsheets write them: columns of other names, encodings, accents, codes that changed."""

from __future__ import annotations

import csv
import io
import unicodedata

import h5py
import pytest

from nemo_pipeline.batch.assemble import relabel
from nemo_pipeline.batch.label_table import read_labels
from nemo_pipeline.batch.label_text import MOST_BYTES
from nemo_pipeline.batch.labels import LabelledVideo, match_labels, similar_names
from nemo_pipeline.errors import DataError, SettingsError
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import equal_codes
from nemo_pipeline.store.verify import label_findings
from tests.support.siam_faces import drawn_file
from tests.support.siam_runs import train


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def videos(*files):
    return [LabelledVideo(f, f.rsplit("/", 1)[-1].rsplit(".", 1)[0], (f.rsplit(".", 1)[0],)) for f in files]


def labels_of(tmp_path, text, file, encoding="utf-8"):
    """What a video called `file` gets from a table."""
    table = read_labels(write(tmp_path, text, encoding), [file])
    return match_labels(table, videos(file)).labels.get(file)


@pytest.mark.parametrize(
    "header",
    [
        "Participant ID, File Name, Age (years), Sex",
        "participant_id;filename;AGE [yrs];gender",
        "SubjectID\tVideo File\tage in years\tSex",
        "Person,Clip,Age,Sex",
        "\ufeff\n\n#subject,video,age,gender",
    ],
)
def test_usual_names_of_columns_are_taken_and_said(tmp_path, header):
    row = ["001", "a.mp4", "23", "F"]
    delimiter = max(",;\t", key=header.count)
    table = read_labels(write(tmp_path, f"{header}\n{delimiter.join(row)}\n"))
    assert table.by_video == {"a.mp4": {"subject": "001", "age": 23.0, "gender": "female"}}
    said = " ".join(table.notes)
    for given in header.replace(";", ",").replace("\t", ",").split(","):
        given = given.strip("\ufeff\n# ")
        assert given.lower() in ("subject", "video", "age", "gender") or f"{given} as " in said


def test_columns_that_are_not_used_are_named(tmp_path):
    table = read_labels(write(tmp_path, "Filename,Participant,Years,Age (months),Note\na.mp4,1,23,276,x\n"))
    assert table.by_video == {"a.mp4": {"subject": "1"}}
    said = " ".join(table.notes)
    assert "not used: Years, Age (months), Note." in said and "no column is understood as age" in said
    plain = read_labels(write(tmp_path, "video,subject,age\na.mp4,1,23\n"))
    assert plain.notes == ()


def test_what_spreadsheets_write(tmp_path):
    text = 'sep=;\r\n\r\n# made by hand\r\nvideo; subject; age; fold;\r\n="001.mp4"; "1"; 23,5; 2;\r\n# later\r\n'
    text += '002.mp4;="007";.;#N/A;;\r\n003.mp4; 8 ;;;\r\n'
    table = read_labels(write(tmp_path, text))
    assert table.by_video == {
        "001.mp4": {"subject": "1", "age": 23.5, "fold": 2},
        "002.mp4": {"subject": "007"},
        "003.mp4": {"subject": "8"},
    }
    assert read_labels(write(tmp_path, 'video, subject\r"a.mp4", "1"\r')).by_video == {
        "a.mp4": {"subject": "1"}
    }
    with pytest.raises(DataError, match="line 2: subject is #REF!, an error of the spreadsheet"):
        read_labels(write(tmp_path, "video,subject,age\na.mp4,#REF!,3\n"))


@pytest.mark.parametrize("cell", ["2_3", "٢٣", "1e1", "0x17", "23 years", "+-2", "two"])
def test_an_age_is_a_plain_number(tmp_path, cell):
    with pytest.raises(DataError, match="line 2: age is"):
        read_labels(write(tmp_path, f"video,age\na.mp4,{cell}\n"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
@pytest.mark.parametrize("named", ["path", "name", "stem"])
def test_accents_match_composed_and_decomposed(tmp_path, form, other, named):
    file = unicodedata.normalize(form, "Zoë é/Renée.mp4")
    name = unicodedata.normalize(
        other, {"path": "Zoë é/Renée.mp4", "name": "Renée.mp4", "stem": "Renée"}[named]
    )
    assert labels_of(tmp_path, f"video,age\n{name},30\n", file) == {"age": 30.0}
    # A path that begins elsewhere, and another folder.
    deeper = unicodedata.normalize(other, "/data/Zoë é/Renée.mp4")
    assert labels_of(tmp_path, f"video,age\n{deeper},30\n", file) == {"age": 30.0}
    assert labels_of(tmp_path, f"video,age\nZoé/{name.rsplit('/')[-1]},30\n", file) is None


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "cp1250", "utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings_of_spreadsheets_are_found_by_the_videos_names(tmp_path, encoding):
    text = "video;subject;age\nJürgen Größ.mp4;Jürgen;23\nb.mp4;b;24\n"
    table = read_labels(write(tmp_path, text, encoding), ["Jürgen Größ.mp4", "b.mp4"])
    matched = match_labels(table, videos("Ju\u0308rgen Größ.mp4", "b.mp4"))
    assert matched.labels["Ju\u0308rgen Größ.mp4"] == {"subject": "Jürgen", "age": 23.0}
    assert bool(table.notes) == (encoding in ("cp1252", "mac_roman", "cp1250"))
    if encoding == "mac_roman":
        assert "is read as Mac Roman" in matched.notes[0] and "save it as UTF-8" in matched.notes[0]


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
def test_encodings_without_such_names(tmp_path, encoding):
    people = ["René", "Zoë", "Hélène", "François", "Noël", "Chloé", "Inès", "Benoît", "Jérôme", "Anaïs"]
    rows = "".join(f"v{i}.mp4,{name},{20 + i}\n" for i, name in enumerate(people))
    table = read_labels(write(tmp_path, "video,subject,age\n" + rows, encoding), ["v0.mp4"])
    assert [labels["subject"] for labels in table.by_video.values()] == people


def test_what_is_stored_is_utf8(tmp_path):
    data = drawn_file(tmp_path / "out.h5", subjects=2, clips=1, frames=3)
    names = FaceDataset(data).videos["file"]
    text = f"video,subject,expression\n{names[0]},Ren\xe9,heureux \xe0 demi\n".encode("cp1252")
    relabel(data, read_labels(write(tmp_path, text), names))
    mixed = f"video,subject,expression\n{names[1]},Zoë ë ë".encode() + b"\xe9,x\n"
    relabel(data, read_labels(write(tmp_path, mixed), names))
    with h5py.File(data) as file:  # as any program reads it
        assert file["videos/subject"].asstr()[:].tolist() == ["René", "Zoë ë ëé"]


def test_codes_that_differ_in_a_byte_that_is_no_utf8_stay_two(tmp_path):
    rows = [b"a.mp4,Ren\xe9", b"b.mp4,Ren\xe8", b"c.mp4,Ren\x81", "d.mp4,Renée ëëëëëë".encode()]
    table = read_labels(write(tmp_path, b"\n".join([b"video,subject", *rows])))
    codes = [labels["subject"] for labels in table.by_video.values()]
    assert codes[:3] == ["René", "Renè", "Ren\x81"] and "3 bytes, read as Windows-1252" in table.notes[0]


def test_a_name_whose_bytes_are_no_utf8_is_found(tmp_path):
    file = b"Zo\xeb.mp4".decode("utf-8", "surrogateescape")
    assert labels_of(tmp_path, b"video,age\nZo\xeb.mp4,30\n", file) == {"age": 30.0}
    assert labels_of(tmp_path, "video,age\ném.mp4,1\nü,2\n".encode() + b"Zo\xeb.mp4,30\n", file) == {
        "age": 30.0
    }


def test_leading_zeros_are_offered_and_never_taken(tmp_path):
    table = read_labels(write(tmp_path, "video,age\n1.mp4,30\n2,31\n30.mp4,32\n"))
    matched = match_labels(table, videos("001.mp4", "a/002.mp4", "003.mp4"))
    assert not matched.labels and matched.similar == {"1.mp4": "001.mp4", "2": "a/002.mp4"}
    assert "1.mp4 may mean 001.mp4" in similar_names(matched)
    data = drawn_file(tmp_path / "out.h5", subjects=1, clips=1, frames=3)
    name = FaceDataset(data).videos["file"][0]
    with pytest.raises(DataError, match=r"nothing was changed\. Did a spreadsheet drop leading zeros"):
        relabel(data, read_labels(write(tmp_path, f"video,age\n{name.replace('000_', '0_')},30\n")))


def test_a_replacement_without_ages_is_refused(tmp_path):
    data = drawn_file(tmp_path / "out.h5", subjects=3, clips=1, frames=3)
    name = FaceDataset(data).videos["file"][0]
    table = read_labels(write(tmp_path, f"Filename,Participant ID,Years\n{name},7,30\n"))
    before = data.read_bytes()
    with pytest.raises(DataError, match=r"no ages, and `replace` would remove all 3 .* not used: Years"):
        relabel(data, table, replace=True)
    assert data.read_bytes() == before
    relabel(data, table)
    assert FaceDataset(data)[0].subject == "7" and FaceDataset(data)[0].age > 0
    relabel(data, table, replace=True, force=True)
    assert not (FaceDataset(data).videos["age"] > 0).any()


def test_codes_that_may_be_one_person():
    assert equal_codes(["1", "001", "1.0", "10", "2", "S 1", "s01", "S2", "ann", "Ann ", "1.5", "1.05"]) == [
        ["001", "1", "1.0"], ["Ann ", "ann"], ["S 1", "s01"]
    ]  # fmt: skip
    assert equal_codes(["0", "00", "a0", "a"]) == [["0", "00"]] and equal_codes(map(str, range(400))) == []


def test_such_codes_are_named_and_refused_in_training(tmp_path):
    data = drawn_file(tmp_path / "out.h5", subjects=8, clips=1, frames=3)
    names = FaceDataset(data).videos["file"]
    codes = ["1", "001", "2", "3", "4", "5", "6", "7"]
    rows = "".join(
        f"{name},{code},{30 + i}\n" for i, (name, code) in enumerate(zip(names, codes, strict=True))
    )
    relabel(data, read_labels(write(tmp_path, "video,subject,age\n" + rows)))
    assert ["'001', '1' may be one person" in f.text for f in label_findings(FaceDataset(data))].count(
        True
    ) == 1
    with pytest.raises(SettingsError, match=r"may mean one person: '001', '1'\. .*`distinct_subjects`"):
        train(data, tmp_path / "run", preset="small")
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        SettingsError, match="epochs"
    ):  # said to be different people, it goes on to the next check
        train(data, tmp_path / "run", preset="small", distinct_subjects=True, epochs=0)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"video,age\na.mp4,3\nb\0.mp4,4\n", "line 3 holds a NUL"),
        (b"\xff\xfe" + "video,age\na\0,3\n".encode("utf-16-le"), "line 2 holds a NUL"),
        (b"\xff\xfe\xff", "is damaged"),
        (b"video,age\n" + b"a" * 200_000 + b",3\n", "line 2: it is not CSV"),
        (b"video,age" + b",x" * 1_000_000 + b"\na,3\n", "has 1000002 columns"),
        (b"video,age\n" + b"a" * MOST_BYTES, "more than 64 MiB"),
        (b"# nothing\n\n", "is empty"),
    ],
)
def test_hostile_tables_are_sentences(tmp_path, data, complaint):
    with pytest.raises(DataError, match=complaint):
        read_labels(write(tmp_path, data))


def test_a_table_that_the_csv_module_wrote_is_read_back(tmp_path):
    text = io.StringIO()
    names = ["a, b.mp4", 'say "x".mp4', "new\nline.mp4", "=formula.mp4", "#1.mp4"]
    csv.writer(text).writerows([["video", "age"], *([name, 30] for name in names)])
    assert list(read_labels(write(tmp_path, text.getvalue())).by_video) == names
