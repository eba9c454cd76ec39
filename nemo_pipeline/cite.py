"""How a prepared file was made: a paragraph for a paper, its references as BibTeX, and a description in the manner of
BIDS. Every number comes from the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from nemo_pipeline import __version__
from nemo_pipeline.config import PrepConfig
from nemo_pipeline.status import Status
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.text import escape_controls, pluralize

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


def prep_text(data: FaceDataset) -> tuple[str, list[str]]:
    """The paragraph on a prepared file, with keys in [@...], and the keys."""
    config, videos = data.config, data.videos
    status = Counter(str(s) for s in videos["status"])
    usable = len(data.usable)
    frames = sum(int(videos["length"][i]) for i in data.usable)
    filled = sum(int(videos["n_interpolated"][i]) for i in data.usable)
    people = {str(videos["subject"][i]) for i in data.usable} - {""}
    left = {name: n for name, n in sorted(status.items()) if not Status.read(name).usable}
    without = len(data.rows) - usable
    excluded = ""
    if without:
        reasons = ", ".join(f"{n} {name}" for name, n in left.items()) or "no frames"
        verb = "was" if without == 1 else "were"
        excluded = f" {pluralize(without, 'row')} gave none and {verb} excluded ({reasons})."
    whose = f" of {pluralize(len(people), 'subject')}" if people else ""
    versions = data.versions
    made = (
        f"nemo {versions.get('nemo-faces', 'of an unknown version')} (algorithm {config.algorithm}) [@nemo]"
    )
    kind = "Synthetic videos" if data.synthetic else "Videos"
    sentences = [
        f"{kind} were prepared with {made}. {pluralize(usable, 'video')}{whose} gave usable faces "
        f"({pluralize(frames, 'frame')}, of which {filled} were interpolated).{excluded}",
        *_points(config, str(data.attributes.get("model_sha256", "")), versions),
        *_faces(config),
    ]
    text = " ".join(sentences)
    return text, cited(text)


def _points(config: PrepConfig, bundle: str, versions: dict[str, str]) -> Iterable[str]:
    """Sentences on landmarks, gaps and smoothing."""
    if config.landmarks_source == "openface":
        yield (
            "The 68 landmarks in the iBUG order [@sagonas2013] were taken from OpenFace [@baltrusaitis2018]; rows with "
            f"a confidence below {config.min_confidence:g} counted as frames without a face."
        )
    else:
        runner = {"litert": "ai-edge-litert", "mediapipe": "mediapipe"}[config.engine]
        version = f" {versions[runner]}" if versions.get(runner) else ""
        yield (
            "Faces were found and tracked with the networks of MediaPipe's Face Landmarker [@mediapipe2019; "
            f"@kartynnik2019] (run by {runner}{version}{f'; bundle SHA-256 {bundle[:12]}' if bundle else ''}), and 68 "
            "landmarks in the iBUG order [@sagonas2013] derived from its 478-point mesh by a fixed geometric rule."
        )
    who = {
        "largest": "Of several people the one with the largest face was followed",
        "central": "Of several people the one nearest to the centre of the picture was followed",
        "all": "All people were followed, each as a row of its own",
    }[config.follow]
    kept = (
        "the longest segment of a video was"
        if config.segments == "longest"
        else "all segments of a video were"
    )
    yield (
        f"{who}; frames turned by more than {config.max_yaw_degrees:g} degrees of yaw counted as frames without a "
        f"face. Gaps of at most {config.max_gap_seconds:g} s were interpolated linearly, longer ones ended a segment, "
        f"and {kept} kept, if of at least {config.min_frames} frames."
    )
    yield {
        "head": (
            "Landmarks were smoothed over time with the 4253H smoother [@velleman1980], applied twice, in the head's "
            "own frame of reference and within the tracker's error."
        ),
        "4253h": (
            "Each coordinate of each landmark was smoothed over time with the 4253H smoother [@velleman1980], applied "
            "twice."
        ),
        "none": "Landmarks were not smoothed.",
    }[config.smooth]


def _faces(config: PrepConfig) -> Iterable[str]:
    shape = {
        "shipped": "the frontal canonical face of the landmark bundle",
        "from-data": "the generalised Procrustes mean [@gower1975] of the landmarks of these videos",
        "custom": f"a given mean shape (SHA-256 {config.mean_shape_sha256[:12]})",
    }[config.mean_shape]
    yield (
        f"Faces were warped to {shape} by a piecewise-affine map over a Delaunay triangulation, as by Pei et al. "
        f"[@pei2020], to {config.size} x {config.size} pixels of gray (margin {100 * config.margin:g} % of the side); "
        "pixels outside the face are 0."
    )
    if config.blendshapes:
        yield "MediaPipe's 52 blendshape scores were computed from the mesh of each frame."


def cited(text: str) -> list[str]:
    """The keys of REFERENCES in a text, in their order there."""
    return [key for key in REFERENCES if f"@{key}" in text]


def bibtex(keys: Iterable[str]) -> str:
    """Their entries."""
    return "\n\n".join(REFERENCES[key] for key in keys) + "\n"


def description(data: FaceDataset) -> dict[str, Any]:
    """`dataset_description.json` of a prepared file, with the fields that BIDS asks of a derivative."""
    text, _ = prep_text(data)
    return {
        "Name": escape_controls(data.path.stem),
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "nemo",
                "Version": data.versions.get("nemo-faces", "unknown"),
                "Description": text,
                "Container": {},
            }
        ],
        "Nemo": {
            "File": escape_controls(data.path.name),
            "UUID": data.uuid,
            "Synthetic": data.synthetic,
            "Videos": len(data.rows),
            "UsableVideos": len(data.usable),
            "Settings": data.config.to_dict(),
            "Versions": data.versions,
            "LandmarkBundleSHA256": str(data.attributes.get("model_sha256", "")),
        },
    }
