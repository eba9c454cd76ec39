"""What is measured on a video before anything is learnt, and its cache next to the prepared file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemo_pipeline.errors import NemoError
from nemo_pipeline.store.files import replacing
from nemo_pipeline.store.locks import hold
from siam_model.methods import lbp_top, vlbp
from siam_model.methods.deformation import deformation_features
from siam_model.methods.displacement import displacement_features
from siam_model.methods.grid import hull_of
from siam_model.methods.inputs import Video, key_frames, resampled
from siam_model.methods.lbp import lbp_histograms

#: Videos after which features are written, so that a killed process loses little.
_BETWEEN = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Descriptor:
    """One kind of features: how it is computed from a video alone. A new `version` is another cache."""

    compute: Callable[[Video], NDArray[np.generic]]
    version: int = 1


def _key_frames(video: Video) -> NDArray[np.uint8]:
    """(2,S,S) uint8: the first and the last frame of the onset."""
    return np.concatenate([video.read_frames(i, i + 1) for i in key_frames(video)])


def _lbp(video: Video) -> NDArray[np.float32]:
    """(2, radii, blocks, codes) of the same."""
    hull = hull_of(video.template)
    return np.stack([lbp_histograms(face, hull) for face in _key_frames(video)])


def _lbp_top(video: Video) -> NDArray[np.float32]:
    faces = resampled(video, lbp_top.RATE, lbp_top.LEAST_FRAMES)
    return lbp_top.lbp_top_histograms(faces, hull_of(video.template))


def _vlbp(video: Video) -> NDArray[np.float32]:
    return vlbp.vlbp_histogram(resampled(video, vlbp.RATE, vlbp.LEAST_FRAMES), hull_of(video.template))


#: Name -> descriptor.
DESCRIPTORS = {
    "key_frames": Descriptor(_key_frames),
    "lbp": Descriptor(_lbp),
    "lbp_top": Descriptor(_lbp_top),
    "vlbp": Descriptor(_vlbp),
    "displacement": Descriptor(displacement_features),
    "deformation": Descriptor(deformation_features),
}


def describe(name: str, videos: Sequence[Video]) -> NDArray[np.generic]:
    """Compute a descriptor again for every video: (V, ...)."""
    return np.stack([DESCRIPTORS[name].compute(video) for video in videos])


@dataclasses.dataclass(eq=False)
class FeatureCache:
    """Descriptors of videos, computed once: kept in memory, and in a folder by what the videos hold.

    Attributes:
        folder: made when something is kept; None, or one that cannot be written: memory alone.
        say: told what is being computed.
    """

    folder: Path | None = None
    say: Callable[[str], None] = lambda text: None
    _kept: dict[str, dict[str, NDArray[np.generic]]] = dataclasses.field(default_factory=dict)

    def __call__(self, name: str, videos: Sequence[Video]) -> NDArray[np.generic]:
        """(V, ...) of the descriptor `name`: what `siam_model.methods.base.Describe` is."""
        kept = self._kept.setdefault(name, self._read(name))
        compute = DESCRIPTORS[name].compute
        missing = [video for video in videos if not video.key or video.key not in kept]
        if not missing:
            return np.stack([kept[video.key] for video in videos])
        fresh: dict[int, NDArray[np.generic]] = {}
        with self._alone(name):
            kept |= self._read(name)  # what another process has kept meanwhile
            missing = [video for video in missing if not video.key or video.key not in kept]
            if len(missing) > 1:
                self.say(f"features {name}: {len(missing)} videos")
            for done, video in enumerate(missing, 1):
                fresh[id(video)] = compute(video)
                if video.key:
                    kept[video.key] = fresh[id(video)]
                if done % _BETWEEN == 0 or done == len(missing):
                    self._write(name, kept)
        return np.stack([kept[v.key] if v.key else fresh[id(v)] for v in videos])

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Processes that train side by side compute a descriptor once: one does, the others wait and read."""
        file = self._file(name)
        if file is not None:
            try:
                file.parent.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                self.say(f"features are not kept: {error.strerror}")
                self.folder = file = None
        if file is None:
            yield
            return
        never = "nobody waits so long"
        with hold(
            file.parent / f".{name}.lock", busy=never, read_only=f"{file.parent} is read-only", patience=-1
        ):
            yield

    def _file(self, name: str) -> Path | None:
        return self.folder / f"{name}-{DESCRIPTORS[name].version}.npz" if self.folder is not None else None

    def _read(self, name: str) -> dict[str, NDArray[np.generic]]:
        """What the folder holds; a damaged file counts as none."""
        file = self._file(name)
        if file is None or not file.is_file():
            return {}
        try:
            with np.load(file, allow_pickle=False) as stored:
                return dict(zip(map(str, stored["keys"]), stored["values"], strict=True))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}

    def _write(self, name: str, kept: dict[str, NDArray[np.generic]]) -> None:
        file = self._file(name)
        if file is None or not kept:
            return
        text = io.BytesIO()
        np.savez(text, keys=np.array(list(kept)), values=np.stack(list(kept.values())))
        try:
            with replacing(file) as temporary:
                temporary.write_bytes(text.getbuffer())
        except (OSError, NemoError) as error:
            self.say(f"features are not kept: {error}")
            self.folder = None
