"""Whether a cut from one person to another ends the track, at which frame, and whether anything else does.

    python benchmarks/cuts.py PERSON.mp4 PERSON.mp4 ... [--true DIR] [--stills DIR] [--seed N] [--every N] [--json FILE]
                              [--margins | --write DIR | --read OUT.h5]

Each PERSON is a clip of another person. From every ordered pair of them short clips are made: framed as they are and
with the eyes at the same place, joined by a hard cut and by a dissolve of 0.2 s; of every fourth pair a dissolve of
0.5 s, and one head on another's body ("same room": nothing changes but the head). Then galleries of 2 x 2 whose tiles
change places. Of each person alone: a flash, a lamp from the side, lights out, a quick zoom, a shaking camera, the
quickest turn and the longest blink at two and a half times their speed, every fourth frame, and a jump cut of half a
second to two (which may be one shot or two). --true is a folder of clips in which nobody should be cut: their tracks
are listed. --stills is a folder of pictures, each of another person: pairs of them, moving slightly.

"One track" means that some track has frames of both shots: for two people that is the fault, for one it is right. A
boundary is exact where the new track begins with the first frame of the new shot, or within the dissolve.

--margins follows everybody through every cut instead, and prints how large a change and how strong a dissolve were
measured, in units of what counts as a cut: at the boundary of two shots, or the largest where there is one.

The clips are tracked in this process. With --write DIR they are written instead; then `nemo prep DIR OUT.h5 --follow
all --segments all`, and --read OUT.h5 (with the same other options) judges its rows.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import av
import numpy as np
from common import machine_facts, print_table
from cut_clips import CutClip, People, alone, galleries, pairs_of_people, quickest, stills

from nemo_pipeline.stages.decode import DecodeError, VideoReader
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.track import Tracker
from nemo_pipeline.store import FaceDataset


def tracked(clip: CutClip, engine: Any) -> dict[int, list[int]]:
    """The frames of each track."""
    tracker = Tracker(engine, "all" if "gallery" in clip.kind else "largest")
    tracks: dict[int, list[int]] = defaultdict(list)
    for k, picture in enumerate(clip.pictures):
        for seen in tracker.step(Frame.from_rgb(picture, k, k / clip.fps)):
            tracks[seen.person].append(k)
    return tracks


def judge(clip: CutClip, tracks: dict[int, list[int]]) -> dict[str, Any]:
    """Whether one track spans both shots (or all of one), and how many frames a boundary is off."""
    tracks = {n: frames for n, frames in tracks.items() if len(frames) > 1}
    if clip.first < 0:
        longest = max((len(frames) for frames in tracks.values()), default=0)
        return {"one": longest >= len(clip.pictures) - 1, "off": 0}
    both = sum(frames[0] <= clip.last and frames[-1] >= clip.first for frames in tracks.values())
    begun = [frames[0] for frames in tracks.values() if frames[-1] >= clip.first and frames[0] > clip.last]
    off = min((max(0, k - clip.first) for k in begun), default=None)
    return {"one": both > clip.stay, "off": off}


@contextlib.contextmanager
def followed_through() -> Iterator[list[tuple[float, float, float]]]:
    """Nobody is cut; (time, change, dissolve) of every step, in units of what is a cut."""
    from nemo_pipeline.stages import cuts, track

    notes: list[tuple[float, float, float]] = []

    class Unending(cuts.Shot):
        def goes_on(self, new: Any, most: float = 0.0) -> bool:
            stretches = [cuts.dissolve(stretch) for stretch in self.stretches(new)]
            change = cuts.change(self.last, new) / cuts.limit(new.time - self.last.time)
            notes.append((new.time, change, max(stretches, default=0.0) / cuts.DISSOLVE))
            return True

    track.Shot = Unending  # type: ignore[misc]
    try:
        yield notes
    finally:
        track.Shot = cuts.Shot  # type: ignore[misc]


def measure(clip: CutClip, engine: Any) -> tuple[float, float]:
    """The change at a hard cut, or the largest; and the strongest dissolve. NaN where the face was lost anyway."""
    with followed_through() as notes:
        tracked(clip, engine)
    if clip.first == clip.last + 1:
        notes = [note for note in notes if abs(note[0] - clip.first / clip.fps) < 1e-6]
    _, changes, dissolves = zip(*notes, strict=True) if notes else ((), (np.nan,), (np.nan,))
    return max(changes), max(dissolves)


def print_margins(clips: Iterable[CutClip], people: People, true: Path | None) -> dict[str, Any]:
    """How far cuts and everything else lie from what counts as a cut."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for clip in clips:
        found[clip.kind].append(measure(clip, people.engine))
    if true:
        with followed_through() as notes:
            true_clips(true, people.engine)
        found["every frame of the true clips"] = [note[1:] for note in notes]
    rows = []
    for kind, values in found.items():
        cells = []
        for column in np.array(values).T:
            known = column[np.isfinite(column)]
            cells += (
                [f"{q:.2f}" for q in np.percentile(known, (0, 1, 50, 99, 99.9, 100))]
                if len(known)
                else [""] * 6
            )
        rows.append([kind, str(len(values)), *cells])
    quantiles = ["least", "1 %", "median", "99 %", "99.9 %", "most"]
    headings = ["kind", "n", *(f"change {q}" for q in quantiles), *(f"dissolve {q}" for q in quantiles)]
    print_table("Margins, in units of what is a cut", headings, rows)
    return dict(found)


def true_clips(folder: Path, engine: Any) -> list[list[str]]:
    """Number of tracks, and of frames in the longest, for each clip in which nobody should be cut."""
    rows = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        tracker, n = Tracker(engine), 0
        tracks: dict[int, list[int]] = defaultdict(list)
        try:
            with VideoReader(path) as reader:
                for frame in reader:
                    n += 1
                    for seen in tracker.step(frame):
                        tracks[seen.person].append(frame.index)
        except DecodeError:
            continue
        ranges = [f"{t[0]}-{t[-1]} ({len(t)})" for t in tracks.values()]
        rows.append([path.name, str(n), str(len(tracks)), ", ".join(ranges)])
    return rows


def write(clip: CutClip, path: Path) -> None:
    """One clip as H.264."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=Fraction(clip.fps))
        stream.height, stream.width = clip.pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "26", "preset": "veryfast"}
        for picture in clip.pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def rows_of_file(path: Path) -> dict[str, dict[int, list[int]]]:
    """The frames of each row, by clip, of what `nemo prep --follow all --segments all` wrote."""
    found: dict[str, dict[int, list[int]]] = defaultdict(dict)
    with FaceDataset(path) as faces:
        for k, video in enumerate(faces.values()):
            name = video.id.split("#")[0].split("/s")[0]
            found[name][k] = [int(i) for i in video.frame_index]
    return found


def main() -> None:
    """Make the clips, track or write or read them, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("people", type=Path, nargs="+", help="clips, each of another person")
    parser.add_argument("--true", type=Path, help="a folder of clips in which nobody should be cut")
    parser.add_argument("--stills", type=Path, help="a folder of pictures, each of another person")
    parser.add_argument("--n-stills", type=int, default=100, help="pairs of pictures")
    parser.add_argument("--galleries", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2, help="of what one person does alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="only every N-th clip")
    parser.add_argument(
        "--kinds", default="", metavar="TEXT", help="only kinds of clip whose name has this in it"
    )
    parser.add_argument("--margins", action="store_true", help="measure how far cuts and others lie apart")
    parser.add_argument("--write", type=Path, help="write the clips here instead of tracking them")
    parser.add_argument(
        "--read", type=Path, help="judge the rows of this file, made from the clips of --write"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    people = People(options.people, options.seed)
    clips = itertools.chain(
        pairs_of_people(people), galleries(people, options.galleries), alone(people, options.repeats), quickest(people),
        stills(people, options.stills, options.n_stills) if options.stills else (),
    )  # fmt: skip
    clips = itertools.islice(clips, 0, None, options.every)
    if options.margins:
        clips = (clip for clip in clips if options.kinds in clip.kind)
        margins = print_margins(clips, people, options.true)
        if options.json:
            result = {"machine": machine_facts(), "seed": options.seed, "margins": margins}
            options.json.write_text(json.dumps(result, indent=2) + "\n")
        return
    rows = rows_of_file(options.read) if options.read else None
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for k, clip in enumerate(clips):
        if options.kinds not in clip.kind:
            continue
        print(f"{k} {clip.kind}: {clip.name}", file=sys.stderr)
        if options.write and rows is None:
            options.write.mkdir(parents=True, exist_ok=True)
            write(clip, options.write / f"clip{k:05}.mp4")
            continue
        tracks = tracked(clip, people.engine) if rows is None else rows.get(f"clip{k:05}", {})
        found[clip.kind].append({"name": clip.name, **judge(clip, tracks)})
    if not found:
        return
    table = []
    for kind, results in found.items():
        offs = [r["off"] for r in results if not r["one"] and r["off"] is not None]
        late = max(offs, default=0)
        one = sum(r["one"] for r in results)
        table.append([kind, str(len(results)), str(one), str(sum(o == 0 for o in offs)), str(late)])
    print_table("Cuts", ["kind", "clips", "one track", "boundary exact", "latest, frames"], table)
    true = true_clips(options.true, people.engine) if options.true else []
    if true:
        print_table("Clips in which nobody is cut", ["clip", "frames", "tracks", "frames of each"], true)
    if options.json:
        result = {"machine": machine_facts(), "seed": options.seed, "cuts": found, "true": true}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
