"""How a prepared file was made: a paragraph for a paper, its references as BibTeX, and a description in the manner of
BIDS. Every number comes from the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nemo_pipeline.config import PrepConfig
from nemo_pipeline.references import cited
from nemo_pipeline.status import Status
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.store.files import read_bounded, replacing
from nemo_pipeline.store.marked import Exclusions, MarkedFaces, file_uuid, record_of_marks
from nemo_pipeline.store.text import escape_controls, pluralize

#: What BIDS calls the description of a data set.
DESCRIPTION = "dataset_description.json"
_LONGEST = 1 << 20


def prep_text(data: FaceDataset) -> tuple[str, list[str]]:
    """The paragraph on a prepared file, with keys in [@...], and the keys."""
    config, videos = data.config, data.videos
    status = Counter(str(s) for s in videos["status"])
    usable = len(data.usable)
    frames = sum(int(videos["length"][i]) for i in data.usable)
    filled = sum(int(videos["n_interpolated"][i]) for i in data.usable)
    people = {str(videos["subject"][i]) for i in data.usable} - {""}
    left = {name: n for name, n in sorted(status.items()) if not Status.read(name).usable}
    by_hand = left.pop(str(Status.EXCLUDED), 0)
    without = len(data.rows) - usable - by_hand
    excluded = ""
    if without:
        reasons = ", ".join(f"{n} {name}" for name, n in left.items()) or "no frames"
        verb = "was" if without == 1 else "were"
        excluded = f" {pluralize(without, 'row')} gave none and {verb} excluded ({reasons})."
    excluded += left_out_text(data.exclusions) if isinstance(data, MarkedFaces) else ""
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


def left_out_text(found: Exclusions) -> str:
    """A sentence, with a blank before it, on what was marked by hand; "" where nothing was."""
    if not found:
        return ""
    verb = "was" if (found.videos, found.frames) in ((1, 0), (0, 1)) else "were"
    return f" {found.counts()[0].upper()}{found.counts()[1:]} {verb} left out by hand ({found.said()})."


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
            "UUID": file_uuid(data.uuid),
            "Synthetic": data.synthetic,
            "Videos": len(data.rows),
            "UsableVideos": len(data.usable),
            "LeftOutByMarks": record_of_marks(data),
            "Settings": data.config.to_dict(),
            "Versions": data.versions,
            "LandmarkBundleSHA256": str(data.attributes.get("model_sha256", "")),
        },
    }


def write_description(data: FaceDataset) -> Path | None:
    """Write `description` as `dataset_description.json` next to a prepared file; answers the file.

    One that nemo did not write, or that is about another prepared file in the same folder, stays: then None.

    Raises:
        OSError: it cannot be written.
    """
    path = data.path.with_name(DESCRIPTION)
    if path.exists():
        try:
            about = Path(json.loads(read_bounded(path, _LONGEST))["Nemo"]["File"]).name
            if about != escape_controls(data.path.name) and data.path.with_name(about).exists():
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    text = json.dumps(description(data), indent=2) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="ascii")
    return path
