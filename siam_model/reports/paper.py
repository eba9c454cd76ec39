"""The numbers that the paper prints, each with its table. Nothing here was measured by us.

Pei, Dibeklioglu, Baltrusaitis, Tax: "Attended End-to-end Architecture for Age Estimation from Facial Expression
Videos", IEEE Transactions on Image Processing 29, 2020. Errors in years; pairs are the mean absolute error and the
deviation that the paper prints behind it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Phase = Literal["onset", "apex", "offset"]

#: What all of them were measured on, unless it is said otherwise.
SMILES = "UvA-NEMO Smile Database: 1240 videos of 400 subjects, 10 folds"
#: Table IV's other one.
DISGUST = "UvA-NEMO Disgust Database: 518 videos of 324 subjects"


class Error(NamedTuple):
    """Mean absolute error and the deviation printed behind it, years."""

    mae: float
    deviation: float


class PaperMethod(NamedTuple):
    """A row of Table III: by decade from 0-9 to 70-79, then over all ages."""

    kind: str
    name: str
    decades: tuple[float, ...]
    all: Error


#: Table I: variant of the study "mechanisms" -> error.
MECHANISMS = {
    "agnostic": Error(4.95, 5.77),
    "full": Error(4.94, 5.65),
    "mediate": Error(5.01, 5.45),
    "indexed": Error(4.74, 5.70),
}
#: Table II: phases, in the order of a video -> error.
PHASES: dict[tuple[Phase, ...], Error] = {
    ("onset",): Error(8.41, 8.95),
    ("apex",): Error(5.91, 7.05),
    ("offset",): Error(8.75, 9.68),
    ("onset", "apex"): Error(5.04, 5.80),
    ("apex", "offset"): Error(5.13, 5.83),
    ("onset", "apex", "offset"): Error(4.74, 5.70),
}
#: Table III: its columns, and its rows in the paper's order. References are the paper's.
DECADES = ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70-79")
_ST, _DY, _AP, _AD = "Spatio-temporal", "Dynamics", "Appearance", "Appearance + dynamics"
METHODS = (
    PaperMethod(_ST, "VLBP [62]", (10.69, 12.95, 15.99, 18.54, 18.43, 16.58, 23.80, 26.59), Error(15.70, 12.40)),
    PaperMethod(_ST, "LBP-TOP [63]", (9.71, 11.01, 14.19, 15.88, 16.75, 15.29, 19.70, 23.71), Error(13.83, 10.97)),
    PaperMethod(_DY, "Deformation [10]", (4.85, 8.72, 12.22, 13.06, 13.53, 11.55, 14.13, 17.82), Error(10.81, 8.85)),
    PaperMethod(_DY, "Displacement [9]", (5.42, 9.67, 11.98, 14.53, 12.77, 15.42, 20.57, 20.35), Error(11.54, 11.49)),
    PaperMethod(_AP, "IEF, neutral [10]", (3.27, 3.96, 4.86, 6.11, 5.53, 8.24, 12.89, 13.35), Error(5.21, 4.48)),
    PaperMethod(_AP, "IEF, fusion [10]", (3.54, 4.38, 5.43, 6.74, 6.01, 8.96, 13.52, 14.05), Error(5.71, 4.65)),
    PaperMethod(_AP, "LBP, neutral [10]", (3.86, 4.65, 5.87, 6.82, 5.58, 8.32, 9.84, 11.9), Error(5.67, 4.97)),
    PaperMethod(_AP, "LBP, fusion [10]", (4.18, 4.99, 6.31, 7.37, 6.19, 8.67, 10.34, 12.93), Error(6.12, 5.11)),
    PaperMethod(_AP, "CNNs", (2.30, 3.09, 4.69, 5.26, 5.82, 10.58, 17.20, 23.29), Error(5.13, 5.68)),
    PaperMethod(_AD, "IEF + dynamics [10]", (3.96, 4.45, 4.50, 5.29, 4.74, 6.85, 12.43, 11.94), Error(5.00, 4.25)),
    PaperMethod(_AD, "LBP + dynamics [10]", (3.49, 4.68, 5.13, 5.85, 5.24, 7.05, 12.17, 12.00), Error(5.29, 4.36)),
    PaperMethod(_AD, "SIAM", (1.79, 2.45, 4.26, 4.97, 5.36, 11.86, 16.43, 23.12), Error(4.74, 5.70)),
)  # fmt: skip
#: Table III's last row: videos by decade, and all of them.
SAMPLES = (158, 333, 215, 171, 250, 66, 30, 17)
ALL_SAMPLES = 1240
#: Table IV: (expression, condition) of the videos that a model was trained and tested on -> its rows.
SUBSETS = {
    ("disgust", "posed"): {
        "IEF + dynamics [10]": Error(5.06, 4.45),
        "LBP + dynamics [10]": Error(5.19, 4.51),
        "SIAM": Error(6.96, 7.24),
    },
    ("smile", "posed"): {
        "IEF + dynamics [10]": Error(4.91, 4.17),
        "LBP + dynamics [10]": Error(5.16, 4.30),
        "SIAM": Error(6.41, 6.65),
    },
}
#: Section V-B (drawn in Figure 6): variant of the study "modules" -> mean absolute error.
MODULES = {"conv": 5.13, "conv_recurrent": 4.93, "conv_recurrent_spatial": 4.81, "full": 4.74}
#: Figure 5's caption: share of the variance in the first three principal components.
PCA_VARIANCE = 0.55
#: Section V-D2 (Figure 8): better than the other methods, p < 0.01, where more samples than this are asked for.
SIGNIFICANT_ABOVE = 5
