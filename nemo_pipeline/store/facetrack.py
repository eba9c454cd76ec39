"""`FaceTrack`: T frames of one face in memory, as named arrays: a prepared or tracked video, or a model's input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.datatypes import VideoInfo, row_name
from nemo_pipeline.geometry import points_off
from nemo_pipeline.status import Status
from nemo_pipeline.store.schema import FRAME_FIELDS, FrameField


class FrameArrays:
    """Every frame dataset of the format as an attribute: `.landmarks`, `.timestamps`, `.pose` and so on; one that a
    setting leaves out (`mesh`) is None. Subclasses have `read`, and `holds`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def read(self, name: str) -> NDArray[Any]: ...

        def holds(self, name: str) -> bool: ...

    @property
    def points_off(self) -> NDArray[np.float64]:
        """(T,): distance of the smoothed points from the tracked ones, in inter-ocular distances (mean over the
        points). Above 0.05 the face was warped from the wrong place."""
        return points_off(self.landmarks, self.landmarks_raw)


def _attribute(name: str, field: FrameField) -> property:
    def get(arrays: FrameArrays) -> NDArray[Any] | None:
        return arrays.read(name) if not field.setting or arrays.holds(name) else None

    shape = ",".join(["T", *("S" if n is None else str(n) for n in field.tail)])
    comma = "" if field.tail else ","
    return property(get, doc=f"({shape}{comma}) {np.dtype(field.dtype).name}: {field.meaning}.")


for _name, _field in FRAME_FIELDS.items():
    setattr(FrameArrays, _name, _attribute(_name, _field))


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class FaceTrack(FrameArrays):
    """T frames of one face in one video.

    Attributes:
        arrays: frame datasets of the format by name, (T, ...) each; any of them may be left out. They are attributes,
            too: `.landmarks` is `.arrays["landmarks"]`.
        status, message: what became of the video. T is 0 where there is no face to use.
        n_decoded: frames of the video.
        info: what the stream says of itself.
        person, segment: as in /videos.
        file, id, path, sha256: of the video; empty where it is not known.
        subject, age: its labels; "" and NaN where unknown.

    Examples:
        >>> import numpy as np
        >>> from nemo_pipeline import FaceTrack
        >>> FaceTrack({"timestamps": np.arange(3) / 25, "tracked": np.ones(3, bool)}, n_decoded=4)
        FaceTrack(ok, 3 of 4 frames: timestamps (3,) float64, tracked (3,) bool)

    Raises:
        ValueError: an array that the format does not know, or of another shape or kind than it has there; arrays of
            different lengths.
    """

    arrays: Mapping[str, NDArray[Any]]
    status: Status = Status.OK
    message: str = ""
    n_decoded: int = 0
    info: VideoInfo = VideoInfo()  # noqa: RUF009 (frozen)
    person: int = 0
    segment: int = 0
    file: str = ""
    id: str = ""
    path: Path | None = None
    sha256: str = ""
    subject: str = ""
    age: float = math.nan

    def __post_init__(self) -> None:
        """Check the arrays."""
        object.__setattr__(self, "arrays", {name: np.asarray(a) for name, a in self.arrays.items()})
        for name, array in self.arrays.items():
            field = FRAME_FIELDS.get(name)
            if field is None:
                raise ValueError(f"{name!r} is not a frame dataset; there are {', '.join(FRAME_FIELDS)}.")
            tail, kind = array.shape[1:], np.dtype(field.dtype).kind
            wanted = tuple(
                have if want is None else want for want, have in zip(field.tail, tail, strict=False)
            )
            if (
                not array.ndim
                or tail != wanted
                or len(tail) != len(field.tail)
                or _kind(array.dtype.kind) != _kind(kind)
            ):
                shape = ("T", *("S" if n is None else n for n in field.tail))
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}; {np.dtype(field.dtype).name} "
                    f"({', '.join(map(str, shape))}) is needed."
                )
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"arrays of different lengths: {', '.join(f'{n} {k}' for n, k in lengths.items())}."
            )

    @classmethod
    def from_records(cls, records: NDArray[np.void], **facts: Any) -> FaceTrack:
        """From a structured array with one element per frame, as `store.schema.record_dtype` has it."""
        names = records.dtype.names or ()
        return cls({name: np.ascontiguousarray(records[name]) for name in names}, **facts)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()), ()))

    def read(self, name: str) -> NDArray[Any]:
        """One array. Raises AttributeError where it was left out."""
        try:
            return self.arrays[name]
        except KeyError:
            raise AttributeError(f"this track has no {name}; it has {', '.join(self.arrays)}.") from None

    def holds(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self.arrays

    def only(self, *names: str) -> FaceTrack:
        """The same with no other arrays than these."""
        return dataclasses.replace(self, arrays={n: a for n, a in self.arrays.items() if n in names})

    @property
    def name(self) -> str:
        """The file, and which person and segment of it: what the row is called in messages."""
        return row_name(self.file, self.person, self.segment)

    @property
    def n_interpolated(self) -> int:
        """Frames in which no face was tracked."""
        return int((~self.arrays["tracked"]).sum()) if "tracked" in self.arrays else 0

    def __repr__(self) -> str:
        arrays = ", ".join(f"{n} {a.shape} {a.dtype}" for n, a in self.arrays.items())
        return f"FaceTrack({self.status}, {len(self)} of {self.n_decoded} frames{': ' if arrays else ''}{arrays})"


def _kind(kind: str) -> str:
    """Signed and unsigned whole numbers are one kind."""
    return "i" if kind == "u" else kind
