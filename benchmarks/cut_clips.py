"""The clips of `cuts.py`: people joined by cuts and dissolves, galleries, and one person with what is not a cut."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from nemo_pipeline.stages.decode import VideoReader
from nemo_pipeline.stages.engines import load_engine
from nemo_pipeline.stages.frame import Frame
from nemo_pipeline.stages.search import full_search
from nemo_pipeline.stages.track import Tracker

FPS = 30.0
SIZE = WIDTH, HEIGHT = 480, 360
BEFORE, AFTER = 9, 8
Pictures = list[np.ndarray]


@dataclasses.dataclass
class CutClip:
    """One made clip. `last` is the last frame of the first shot alone, `first` the first of the second alone; both
    -1 where there is one shot. `stay` people are the same in both."""

    name: str
    kind: str
    pictures: Pictures
    last: int = -1
    first: int = -1
    fps: float = FPS
    stay: int = 0


class People:
    """The people's clips, decoded once, and from a seed the stretches that are used of each."""

    def __init__(self, paths: list[Path], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.engine = load_engine("litert")
        self.pictures: dict[str, Pictures] = {}
        for path in paths:
            with VideoReader(path) as reader:
                self.pictures[path.stem] = [_reduced(frame.rgb()) for frame in reader]
        self.names = sorted(self.pictures)

    def stretch(self, name: str, n: int, step: int = 1) -> tuple[Pictures, np.ndarray]:
        """`n` pictures from a random place where a face is found, and its outer eye corners (2, 2) in the first."""
        every = self.pictures[name]
        for _ in range(20):
            start = int(self.rng.integers(0, max(1, len(every) - n * step + 1)))
            chosen = every[start : start + n * step : step]
            eyes = self.eyes(chosen[0])
            if eyes is not None and self.eyes(chosen[-1]) is not None:
                return chosen, eyes
        raise SystemExit(f"{name}: no stretch of {n} frames with a face at both ends was found.")

    def eyes(self, picture: np.ndarray) -> np.ndarray | None:
        """The outer eye corners of the largest face."""
        found = full_search(self.engine, Frame.from_rgb(picture))
        found.sort(key=lambda face: -face.region.size)
        return found[0].points[[33, 263], :2].astype(float) if found else None


def _reduced(picture: np.ndarray) -> np.ndarray:
    scale = 720 / max(picture.shape)
    return (
        picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    )


def as_it_is(pictures: Iterable[np.ndarray], size: tuple[int, int] = SIZE) -> Pictures:
    """The middle of each picture, as large as fits."""
    out = []
    for picture in pictures:
        scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
        large = cv2.resize(
            picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        x, y = (large.shape[1] - size[0]) // 2, (large.shape[0] - size[1]) // 2
        out.append(np.ascontiguousarray(large[y : y + size[1], x : x + size[0]]))
    return out


def aligned(pictures: Iterable[np.ndarray], eyes: np.ndarray, distance: float = 110.0) -> Pictures:
    """The eyes of the first picture brought to one place."""
    axis = eyes[1] - eyes[0]
    scale, angle = distance / np.hypot(*axis), np.arctan2(axis[1], axis[0])
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    place = np.array([[c, s, 0.0], [-s, c, 0.0]])
    place[:, 2] = np.array([WIDTH / 2, 0.42 * HEIGHT]) - place[:, :2] @ eyes.mean(axis=0)
    out = []
    for picture in pictures:
        soft = cv2.GaussianBlur(picture, (0, 0), 0.45 / scale) if scale < 0.7 else picture
        out.append(cv2.warpAffine(soft, place, SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return out


def joined(name: str, kind: str, a: Pictures, b: Pictures, mixed: int = 0) -> CutClip:
    """Two shots, hard or with so many mixed pictures between them. `a` and `b` hold BEFORE + mixed, mixed + AFTER."""
    steps = [(k + 1) / (mixed + 1) for k in range(mixed)]
    between = [
        np.round((1.0 - w) * x + w * y).astype(np.uint8)
        for w, x, y in zip(steps, a[BEFORE:], b[:mixed], strict=False)
    ]
    pictures = a[:BEFORE] + between + b[mixed : mixed + AFTER]
    return CutClip(name, kind, pictures, BEFORE - 1, BEFORE + mixed)


def pairs_of_people(people: People) -> Iterator[CutClip]:
    """Every ordered pair, hard and dissolved, as it is and aligned; every fourth slowly, and in the same room."""
    most = max(BEFORE, AFTER) + 15
    plain, same = {}, {}
    for name in people.names:
        for side in ("a", "b"):
            pictures, eyes = people.stretch(name, most)
            plain[name, side], same[name, side] = as_it_is(pictures), aligned(pictures, eyes)
    for k, (a, b) in enumerate(itertools.permutations(people.names, 2)):
        name, rare = f"{a} to {b}", k % 4 == 0
        for framing, made in (("as it is", plain), ("aligned", same)):
            for mixed, how in ((0, "hard cut"), (6, "dissolve 0.2 s"), (15, "dissolve 0.5 s"))[: 2 + rare]:
                yield joined(name, f"{framing}, {how}", made[a, "a"], made[b, "b"], mixed)
        if rare:
            heads = [
                _head_on(x, y) for x, y in zip(same[a, "a"][BEFORE - 1 :: -1], same[b, "b"], strict=False)
            ]
            yield joined(name, "same room, hard cut", same[a, "a"], heads)


def _head_on(body: np.ndarray, head: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = np.hypot((x - WIDTH / 2) / 105, (y - 165) / 140)
    weight = np.clip((1.15 - inside) / 0.15, 0, 1)[..., None]
    return np.round(weight * head + (1 - weight) * body).astype(np.uint8)


def galleries(people: People, n: int) -> Iterator[CutClip]:
    """2 x 2 tiles of four people; all or two of them change places."""
    for k in range(n):
        four = [str(name) for name in people.rng.choice(people.names, 4, replace=False)]
        tiles = [as_it_is(people.stretch(name, BEFORE + AFTER)[0], (320, 240)) for name in four]
        order = [1, 0, 2, 3] if k % 3 == 0 else [1, 2, 3, 0] if k % 3 == 1 else [3, 2, 1, 0]
        pictures = []
        for i in range(BEFORE + AFTER):
            a, b, c, d = (tiles[j][i] for j in (order if i >= BEFORE else range(4)))
            pictures.append(np.vstack([np.hstack([a, b]), np.hstack([c, d])]))
        kind = "gallery, two tiles change" if k % 3 == 0 else "gallery, four tiles change"
        yield CutClip(" ".join(four), kind, pictures, BEFORE - 1, BEFORE, stay=2 if k % 3 == 0 else 0)


def alone(people: People, repeats: int) -> Iterator[CutClip]:
    """One person, with what is not a cut, and a jump cut."""
    rng = people.rng
    for name, _ in itertools.product(people.names, range(repeats)):
        base = as_it_is(people.stretch(name, 20)[0])
        gain = float(rng.uniform(1.4, 2.2))
        flash = dict(zip((10, 11, 12), (1.0, 0.8, 0.3), strict=True))
        yield CutClip(
            name,
            "flash",
            _each(base, lambda k, p, g=gain, f=flash: p * (1 + (g - 1) * f.get(k, 0)) + 30 * f.get(k, 0)),
        )
        lamp = np.linspace(1.6, 0.5, WIDTH)[None, :, None]
        yield CutClip(
            name, "lamp from the side", _each(base, lambda k, p, lamp=lamp: p * lamp if 10 <= k < 16 else p)
        )
        yield CutClip(name, "lights out", _each(base, lambda k, p: p * (0.35 if k >= 10 else 1)))
        zoom = [1 + 0.5 * np.clip((k - 10) / 6, 0, 1) for k in range(len(base))]
        yield CutClip(name, "zoom by half in 0.2 s", [_moved(p, s) for p, s in zip(base, zoom, strict=True)])
        shake = [rng.normal(0, 4, 2) if k >= 10 else np.zeros(2) for k in range(len(base))]
        yield CutClip(name, "shaking camera", [_moved(p, 1.0, d) for p, d in zip(base, shake, strict=True)])
        yield CutClip(name, "every fourth frame", as_it_is(people.stretch(name, 18, 4)[0]), fps=FPS / 4)
        every, left_out = people.pictures[name], int(rng.integers(15, 60))
        start = int(rng.integers(0, max(1, len(every) - BEFORE - left_out - AFTER)))
        rest = every[start + BEFORE + left_out : start + BEFORE + left_out + AFTER]
        jump = as_it_is(every[start : start + BEFORE] + rest)
        yield CutClip(name, "jump cut", jump, BEFORE - 1, BEFORE)


def quickest(people: People) -> Iterator[CutClip]:
    """The quickest turn of the head and the longest blink of each person, played 2.5 times as fast."""
    for name in people.names:
        yaw, open_ = [], []
        tracker = Tracker(people.engine)
        for k, picture in enumerate(people.pictures[name]):
            seen = tracker.step(Frame.from_rgb(picture, k, k / FPS))
            points = seen[0].landmarks if seen else np.full((68, 2), np.nan)
            yaw.append(seen[0].pose[0] if seen else np.nan)
            height = points[[40, 41, 46, 47], 1] - points[[38, 37, 44, 43], 1]
            open_.append(height.mean() / (seen[0].eye_distance_px if seen else 1))
        turn = np.abs(np.subtract(yaw[8:], yaw[:-8]))
        for kind, middle in (("quick turn", np.nanargmax(turn) + 4), ("quick blink", np.nanargmin(open_))):
            start = int(np.clip(middle - 30, 0, max(0, len(yaw) - 61)))
            chosen = [
                people.pictures[name][start + int(2.5 * k)]
                for k in range(24)
                if start + int(2.5 * k) < len(yaw)
            ]
            yield CutClip(name, kind, as_it_is(chosen))


def _each(pictures: Pictures, change: Callable[[int, np.ndarray], np.ndarray]) -> Pictures:
    return [np.clip(change(k, p), 0, 255).astype(np.uint8) for k, p in enumerate(pictures)]


def _moved(picture: np.ndarray, scale: float, shift: Iterable[float] = (0.0, 0.0)) -> np.ndarray:
    place = cv2.getRotationMatrix2D((WIDTH / 2, 0.45 * HEIGHT), 0, float(scale))
    place[:, 2] += list(shift)
    return cv2.warpAffine(picture, place, SIZE, borderMode=cv2.BORDER_REPLICATE)


def stills(people: People, folder: Path, n: int) -> Iterator[CutClip]:
    """Pairs of pictures of two people, aligned, each swaying, growing and with noise."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    made: list[Pictures] = []
    for i in people.rng.permutation(len(paths)):
        if len(made) == n + 1:
            break
        picture = _reduced(cv2.imread(str(paths[i]))[..., ::-1])
        eyes = people.eyes(picture)
        if eyes is None:
            continue
        (still,) = aligned([picture], eyes)
        noise = people.rng.normal(0, 2, (BEFORE + AFTER, HEIGHT, WIDTH, 1))
        growing = [
            _moved(still, 1 + 0.002 * k, (2 * np.sin(k / 4), np.cos(k / 5))) for k in range(len(noise))
        ]
        made.append(_each(growing, lambda k, p, noise=noise: p + noise[k]))
    for k, (a, b) in enumerate(itertools.pairwise(made)):
        yield joined(f"stills {k}", "stills, hard cut", a, b)
        yield joined(f"stills {k}", "stills, dissolve 0.2 s", a, b, 6)
