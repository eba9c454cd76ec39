"""The compared methods' features: what they cost, whether they are finite, and one check with a known answer.

    python benchmarks/methods.py features FILE.h5 [--frames 100]
    python benchmarks/methods.py posed FILE.h5

`features`: for each descriptor its shape, whether every value is finite on every video, and the CPU time per frame on
one core (frames of the file, before they are brought to 50 a second). `posed`: posed against spontaneous by the
displacement features through a linear support vector machine, in ten folds that share no subject.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from nemo_pipeline.geometry import Template
from nemo_pipeline.store import FaceDataset
from siam_model.methods.descriptors import DESCRIPTORS
from siam_model.methods.ief import SoftCodes
from siam_model.methods.inputs import ArrayVideo, FileVideo


def template_of(data: FaceDataset) -> Template:
    """Of all its faces."""
    return Template(data.mean_shape, data.triangles, data.size, data.config.margin)


def features(path: Path, most: int) -> None:
    """A table of all descriptors, and of the soft codes, which are learnt from the videos themselves."""
    data = FaceDataset(path)
    shape = template_of(data)
    spent = dict.fromkeys(DESCRIPTORS, 0.0)
    shapes: dict[str, tuple[int, ...]] = {}
    finite, empty, frames, faces, worst = (
        dict.fromkeys(DESCRIPTORS, 0),
        dict.fromkeys(DESCRIPTORS, 0),
        0,
        [],
        {},
    )
    for row in data.usable:
        video = data[int(row)]
        mesh = video.mesh
        clip = ArrayVideo(
            video.frames[:most], video.landmarks[:most], video.timestamps[:most],
            mesh[:most] if mesh is not None else None, video.expression, shape,
        )  # fmt: skip
        frames += len(clip)
        for name, descriptor in DESCRIPTORS.items():
            begin = time.process_time()
            found = descriptor.compute(clip)
            seconds = time.process_time() - begin
            spent[name] += seconds
            worst[name] = max(worst.get(name, 0.0), seconds / len(clip))
            shapes[name] = found.shape
            finite[name] += bool(np.isfinite(found).all())
            empty[name] += not found.any()
            if name == "key_frames":
                faces.append(found)
    print(
        f"{len(data.usable)} videos, {frames} frames (at most {most} of a video), mesh: {data.config.mesh}\n"
    )
    print("| descriptor | values | finite | all 0 | ms per frame | worst video |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in DESCRIPTORS:
        values = " x ".join(map(str, shapes[name]))
        print(
            f"| `{name}` | {values} | {finite[name]} of {len(data.usable)} | {empty[name]} | "
            f"{1000 * spent[name] / frames:.2f} | {1000 * worst[name]:.2f} |"
        )
    coder, stacked = SoftCodes(0), np.stack(faces)
    begin = time.process_time()
    coder.fit_transform([FileVideo(data[int(row)], shape) for row in data.usable], lambda *_: stacked)
    learning = time.process_time() - begin
    begin = time.process_time()
    codes = coder._histograms(stacked[:, 0])
    seconds = time.process_time() - begin
    print(
        f"| soft codes of one face | {codes.shape[1]} | {int(np.isfinite(codes).all(axis=1).sum())} of {len(codes)} | "
        f"0 | {1000 * seconds / len(codes):.2f} (learning: {learning:.1f} s) | |"
    )


def posed(path: Path) -> None:
    """Accuracy of a linear machine on displacement features, by signal, against always guessing the more frequent."""
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    data = FaceDataset(path)
    shape = template_of(data)
    videos = [data[int(row)] for row in data.usable]
    videos = [video for video in videos if video.condition in ("posed", "spontaneous")]
    is_posed = np.array([video.condition == "posed" for video in videos])
    x = np.stack([DESCRIPTORS["displacement"].compute(FileVideo(video, shape)) for video in videos])
    print(f"{len(videos)} videos, {is_posed.sum()} posed\n\n| features | accuracy |\n| --- | --- |")
    print(f"| always the more frequent | {max(is_posed.mean(), 1 - is_posed.mean()):.3f} |")
    parts = {"lip": x[:, :1], "eyelid": x[:, 1:2], "cheek": x[:, 2:], "all": x}
    for name, part in parts.items():
        if not part.any():
            print(f"| {name} | none |")
            continue
        machine = make_pipeline(StandardScaler(), LinearSVC(C=0.01, max_iter=20_000))
        found = cross_val_predict(
            machine, part.reshape(len(part), -1), is_posed, cv=GroupKFold(10),
            groups=[video.subject for video in videos],
        )  # fmt: skip
        print(f"| {name} | {(found == is_posed).mean():.3f} |")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["features", "posed"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--frames", type=int, default=100, help="of each video, at most")
    options = parser.parse_args()
    if options.what == "features":
        features(options.file, options.frames)
    else:
        posed(options.file)


if __name__ == "__main__":
    main()
