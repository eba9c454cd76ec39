"""The statuses of a video, a closed list: cause, remedy, severity, and whether the next run tries again."""

from __future__ import annotations

import enum
from typing import Literal

#: "good": usable. "warn": usable with a reservation. "none": a sound video without a face that can be used. "bad": the
#: video could not be worked on.
Severity = Literal["good", "warn", "none", "bad"]


class Status(enum.StrEnum):
    """The status of a row of /videos. It is its text: files, JSON and tables hold `"ok"`, `"no_face"` and so on.

    Attributes:
        severity: how it is shown.
        cause: what it means, one clause; settings in backticks, as in errors.
        remedy: what to do, one clause; "" where there is nothing to do.
        retry: the next run tries again, since the cause may lie outside the video.
        usable: rows with this status hold frames.
    """

    severity: Severity
    cause: str
    remedy: str
    retry: bool

    OK = "ok", "good", "usable", ""
    DAMAGED = (
        "damaged", "warn", "usable: the undamaged frames of a damaged or incomplete file",
        "copy the file again from its source",
    )  # fmt: skip
    NO_FACE = (
        "no_face", "none",
        "no face was found, or none for long enough; the message says how bright the picture is and what looked most "
        "like a face", "look at the clip; faces need 12 pixels between the outer eye corners",
    )  # fmt: skip
    TOO_SHORT = (
        "too_short", "none", "a face, but no segment of at least 7 frames",
        "a longer clip, or longer gaps with `max_gap_seconds`",
    )  # fmt: skip
    TOO_SMALL = "too_small", "none", "a face with too few pixels", "a version of the clip with more pixels"
    HEAD_TURNED = (
        "head_turned", "none", "non-frontal: a face turned beyond 45° of yaw nearly throughout",
        "a frontal view, or a higher `max_yaw_degrees`",
    )  # fmt: skip
    BLANK = (
        "blank", "none", "the warped faces are black or of one gray level", "check the clip's picture",
    )  # fmt: skip
    NOT_A_VIDEO = (
        "not_a_video", "bad", "sound or cover art alone, or a single picture", "give the video itself",
    )  # fmt: skip
    DECODE_ERROR = (
        "decode_error", "bad",
        "not one frame could be decoded, or only with pictures of more than 67 million pixels (8K) or more than 6 GB "
        "of memory", "copy the file again from its source, or make a smaller copy; the message says which",
    )  # fmt: skip
    UNREADABLE = (
        "unreadable", "bad", "no permission, vanished, empty", "tried again by the next run", True,
    )  # fmt: skip
    LANDMARKS_ERROR = (
        "landmarks_error", "bad", "with `landmarks`: missing, or not of this video",
        "the message says where they differ",
    )  # fmt: skip
    CRASHED = (
        "crashed", "bad", "the process that worked on it died", "tried again by the next run", True,
    )  # fmt: skip
    TIMEOUT = (
        "timeout", "bad", "it took longer than `video_timeout`", "tried again by the next run", True,
    )  # fmt: skip

    EXCLUDED = (
        "excluded", "none", "left out by a mark (`nemo review`); in no file, only where marks are respected",
        "remove the mark to have it back",
    )  # fmt: skip

    def __new__(cls, text: str, severity: Severity, cause: str, remedy: str, retry: bool = False) -> Status:
        """One status: its text as stored, and what follows from it."""
        status = str.__new__(cls, text)
        status._value_ = text
        status.severity, status.cause, status.remedy, status.retry = severity, cause, remedy, retry
        return status

    @property
    def usable(self) -> bool:
        """Rows with this status hold frames."""
        return self.severity in ("good", "warn")

    def __repr__(self) -> str:
        return repr(str(self))

    @classmethod
    def read(cls, text: str) -> Status:
        """The status that a file states. One of a later version, which this one does not know, keeps its text and is
        not usable."""
        for status in cls:
            if status == text:
                return status
        later = str.__new__(cls, text)
        later._name_, later._value_ = "LATER", text
        later.severity, later.retry = "bad", False
        later.cause, later.remedy = "a status of a later version of nemo", "update nemo"
        return later
