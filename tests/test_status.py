"""Statuses: plain text in files, and what follows from them in one place."""

from __future__ import annotations

import json

import pytest

from nemo_pipeline.datatypes import VideoResult, VideoRow
from nemo_pipeline.fields import plain
from nemo_pipeline.status import Status


def test_a_status_is_its_text():
    assert Status("no_face") is Status.NO_FACE and Status.NO_FACE == "no_face"
    assert f"{Status.OK}" == str(Status.OK) == "ok" and repr(Status.OK) == "'ok'"
    assert json.dumps({"status": Status.BLANK}) == '{"status": "blank"}'
    result = VideoResult.failed(Status.TIMEOUT, "It took too long.")
    assert VideoResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert isinstance(VideoResult.from_dict(result.to_dict()).rows[0].status, Status)
    with pytest.raises(ValueError, match="status is 'fine'; it must be one of ok, damaged"):
        VideoResult.from_dict(plain(result) | {"rows": [plain(result.rows[0]) | {"status": "fine"}]})


def test_what_follows_from_a_status():
    assert [s for s in Status if s.usable] == ["ok", "damaged"]
    assert [s for s in Status if s.retry] == ["unreadable", "crashed", "timeout"]
    assert [s for s in Status if not s.remedy] == ["ok"]
    assert all(s.cause and "|" not in s.cause + s.remedy for s in Status)
    assert {s.severity for s in Status} == {"good", "warn", "none", "bad"}
    assert not any(s.retry and s.usable for s in Status)


def test_a_status_of_a_later_version_keeps_its_text():
    later = Status.read("dim")
    assert later == "dim" and str(later) == "dim" and not later.usable and not later.retry
    assert later not in list(Status) and Status.read("ok") is Status.OK
    assert VideoRow(0, 0, "", 0, 0, 0, later, "").status.severity == "bad"
