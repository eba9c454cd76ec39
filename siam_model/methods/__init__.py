"""The methods that the paper's Table III compares with SIAM, re-implemented: what was found of each and what was chosen
is in docs/methods.md. Every one has `fit(videos, ages, subjects)` and `predict(videos)`, on prepared files and on plain
arrays alike (`siam_model.methods.inputs`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nemo_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from siam_model.methods.base import Describe, Method


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A method: what it is called in tables, what the paper's tables call it ("" where they lack it), and the keys of
    its references (`nemo_pipeline.references`)."""

    label: str
    paper: str = ""
    references: tuple[str, ...] = ()


#: Name (of its file of predictions, and on the command line) -> method, in the order of Table III.
METHODS = {
    "vlbp": Entry("VLBP", "VLBP [62]", ("hadid2011",)),
    "vlbp_regression": Entry("VLBP, regression", references=("hadid2011",)),
    "lbp_top": Entry("LBP-TOP", "LBP-TOP [63]", ("zhao2007",)),
    "deformation": Entry("Deformation", "Deformation [10]", ("dibeklioglu2015",)),
    "displacement": Entry("Displacement", "Displacement [9]", ("dibeklioglu2012age",)),
    "ief_neutral": Entry("IEF, neutral", "IEF, neutral [10]", ("alnajar2012", "dibeklioglu2015")),
    "ief_fusion": Entry("IEF, fusion", "IEF, fusion [10]", ("alnajar2012", "dibeklioglu2015")),
    "lbp_neutral": Entry("LBP, neutral", "LBP, neutral [10]", ("ojala2002", "dibeklioglu2015")),
    "lbp_fusion": Entry("LBP, fusion", "LBP, fusion [10]", ("ojala2002", "dibeklioglu2015")),
    "cnn": Entry("CNNs", "CNNs", ("pei2020",)),
    "ief_dynamics": Entry("IEF + dynamics", "IEF + dynamics [10]", ("alnajar2012", "dibeklioglu2015")),
    "lbp_dynamics": Entry("LBP + dynamics", "LBP + dynamics [10]", ("ojala2002", "dibeklioglu2015")),
}
#: Added to a label where a number was measured here: none of them is the authors' own code.
REIMPLEMENTED = " (re-implemented)"


def make_method(name: str, describe: Describe | None = None) -> Method:
    """A method, untrained. `cnn`, SIAM's convolutional part, is not one of these: a training makes it.

    Args:
        name: a key of METHODS.
        describe: where descriptors come from, such as a `FeatureCache`; by default they are computed every time.
    """
    from siam_model.methods import combined, descriptors
    from siam_model.methods.deformation import Deformation
    from siam_model.methods.displacement import Displacement
    from siam_model.methods.ief import IEF
    from siam_model.methods.lbp import LBP
    from siam_model.methods.lbp_top import LBPTop
    from siam_model.methods.vlbp import VLBP, VLBPRegression

    source = describe or descriptors.describe
    makers: dict[str, Callable[[], Method]] = {
        "vlbp": lambda: VLBP(source),
        "vlbp_regression": lambda: VLBPRegression(source),
        "lbp_top": lambda: LBPTop(source),
        "deformation": lambda: Deformation(source),
        "displacement": lambda: Displacement(source),
        "ief_neutral": lambda: IEF(source),
        "ief_fusion": lambda: IEF(source, fusion=True),
        "lbp_neutral": lambda: LBP(source),
        "lbp_fusion": lambda: LBP(source, fusion=True),
        "ief_dynamics": lambda: combined.ief_dynamics(source),
        "lbp_dynamics": lambda: combined.lbp_dynamics(source),
    }
    if name not in makers:
        raise ValueError(
            f"there is no method {name!r} that learns from features; there are {', '.join(makers)}."
        )
    return makers[name]()


def named_methods(text: str) -> tuple[str, ...]:
    """`all` or names with commas between, as METHODS orders them.

    Raises:
        NemoError: an unknown name.
    """
    names = [name.strip().lower().replace("-", "_") for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return tuple(METHODS)
    for name in names:
        if name not in METHODS:
            raise SettingsError(
                f"There is no method {name!r}; there are {', '.join(METHODS)}, and all.", "methods"
            )
    return tuple(name for name in METHODS if name in names)


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """Name -> label for tables of measured numbers. SIAM's convolutional part is the paper's own and ours alike."""
    return {n: METHODS[n].label + ("" if n == "cnn" else REIMPLEMENTED) for n in names}
