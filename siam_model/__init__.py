"""SIAM: the age of a person from a facial-expression video, with attention over face regions and frames.

"Attended End-to-end Architecture for Age Estimation from Facial Expression Videos", Pei, Dibeklioglu,
Baltrusaitis, Tax (IEEE Transactions on Image Processing, 2020). Public names are resolved on first use
(PEP 562): importing this package loads neither torch nor anything of the video side.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Before torch is loaded. OpenMP's threads wait for each other by spinning, which on a machine that does other work too
# takes the core from the very thread that is waited for; sleeping at once costs more than the work between two waits:
# with the small network, three times the time of a step. So they spin for some microseconds (GNU's OpenMP, in torch's
# wheels for Linux), then sleep. Yours comes first.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

#: Public name -> the module that defines it.
_PUBLIC = {
    "LoadedModel": "siam_model.predict",
    "Prediction": "siam_model.predict",
    "SIAM": "siam_model.model",
    "SIAMConfig": "siam_model.config",
    "SIAMOutput": "siam_model.model",
    "TrainConfig": "siam_model.config",
    "load": "siam_model.loading",
}
__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from siam_model.config import SIAMConfig as SIAMConfig
    from siam_model.config import TrainConfig as TrainConfig
    from siam_model.loading import load as load
    from siam_model.model import SIAM as SIAM
    from siam_model.model import SIAMOutput as SIAMOutput
    from siam_model.predict import LoadedModel as LoadedModel
    from siam_model.predict import Prediction as Prediction


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
