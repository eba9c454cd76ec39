"""From a clip's plan to its frames and its truth.

A frame is sampled once: a coarse grid of sampling positions is carried from the picture through the camera,
the head's turn, the person's shape and the expression back to the portrait's texture, enlarged, and read with
one `cv2.remap`. Only the mouth, where three layers meet, is done pixel by pixel. The truth goes the other way
through the same maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from nemo_pipeline.synth.backdrop import make_backdrop
from nemo_pipeline.synth.dynamics import Course
from nemo_pipeline.synth.identity import PLATE, Head, draw_identity
from nemo_pipeline.synth.layers import Expressions, Layer, Mouth, mouth_shape
from nemo_pipeline.synth.lips import above_share, fold_factor, paint_lips, to_texture
from nemo_pipeline.synth.motion import Turn
from nemo_pipeline.synth.plan import Camera, ClipPlan, Person, SynthConfig, generator
from nemo_pipeline.synth.portrait import portrait
from nemo_pipeline.synth.take import Take, draw_take
from nemo_pipeline.synth.texture import Texture, draw_complexion, make_texture

#: Distance between nodes of the coarse grid, portrait pixels (rounded to whole pixels of the output).
COARSE = 3.0
#: Tabulated intensities.
LEVELS = np.linspace(-0.02, 1.26, 17)

#: Rows and columns: of pixels, or of the coarse grid's nodes.
Window = tuple[slice, slice]


class Subject:
    """One person, ready to be filmed: shape, expressions, skin. Depends on the set's seed and the person
    alone."""

    def __init__(self, config: SynthConfig, person: Person) -> None:
        rng = generator(config, 1, person.index)
        self.config, self.person = config, person
        self.face = portrait()
        self.identity = draw_identity(rng, person.gender)
        self.look = draw_complexion(rng, self.face, person.tone)
        self.head = Head(self.face, self.identity)
        self.turn = Turn(self.face, self.head)
        self._expressions: dict[str, Expressions] = {}
        self._textures: dict[tuple[str, float], Texture] = {}

    def expressions(self, kind: str) -> Expressions:
        """The person's tabulated smile or disgust."""
        if kind not in self._expressions:
            self._expressions[kind] = Expressions(self.face, self.identity.style, LEVELS, kind)
        return self._expressions[kind]

    def texture(self, kind: str, scale: float) -> Texture:
        """The person's skin, hair and clothes at a resolution."""
        if (kind, scale) not in self._textures:
            self._textures[kind, scale] = make_texture(
                self.face, self.look, self.person.age, self.config.appearance, kind, scale
            )
        return self._textures[kind, scale]


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """What is exactly known of one clip.

    Attributes:
        landmarks: (T, 68, 2) float64, pixels of the frame, before noise and compression.
        pose: (T, 3) float64, yaw, pitch, roll in degrees (`motion.Turn`).
        course: intensity (T,) and the phases.
        camera: position, size, exposure, noise.
    """

    landmarks: np.ndarray
    pose: np.ndarray
    course: Course
    camera: Camera


class ClipRenderer:
    """One clip: `truth`, and `frames()`.

    Args:
        subject: the person.
        clip: what is filmed.
        take: what happens in it; by default what chance gives (`take.draw_take`).
    """

    def __init__(self, subject: Subject, clip: ClipPlan, take: Take | None = None) -> None:
        config = subject.config
        take = take or draw_take(config, clip)
        self.camera, self.pose, self.course, self._noise_rng = take.camera, take.pose, take.course, take.rng
        self.config, self.subject, self.clip = config, subject, clip
        self._backdrop: np.ndarray | None = None
        self._scale = self.camera.eye_px / subject.face.unit
        self._step = max(2, round(COARSE * self._scale))
        self._anchor = subject.head.from_portrait(subject.face.landmarks[[30]])[0]
        self._offset = np.array(self.camera.centre) * (config.width, config.height) - 0.5
        self.soft = 0.7 / self._scale  # about one pixel of the picture, in portrait pixels
        self._expressions = subject.expressions(clip.expression)
        self.truth = Truth(self._landmarks(), self.pose, self.course, self.camera)

    def _landmarks(self) -> np.ndarray:
        """(T, 68, 2): forward through expression, shape, turn and camera."""
        in_portrait = np.stack([self._expressions.points(value) for value in self.course.intensity])
        in_head = self.subject.head.from_portrait(in_portrait.reshape(-1, 2)).reshape(in_portrait.shape)
        turned = np.empty_like(in_head)
        for frame, angles in enumerate(self.pose):
            turned[frame] = self.subject.turn.forward(in_head[frame], self.subject.turn.field(*angles))
        return (turned - self._anchor) * self._scale + self._offset

    def sampling(self, frame: int, nodes: Window | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coarse sampling positions of a frame, each (rows, columns, 2) float32, portrait pixels.

        Args:
            frame: its number.
            nodes: these nodes alone; all of them by default.

        Returns:
            Positions on the portrait in this expression (before the expression is undone), and after it is
            undone above and below the lips' line. The nodes are the middles of square blocks of `_step`
            pixels that cover the picture, and of one more ring of blocks around it.
        """
        size = self._step
        rows, columns = nodes or self._all_nodes()
        x = (np.arange(columns.start, columns.stop) - 0.5) * size - 0.5
        y = (np.arange(rows.start, rows.stop) - 0.5) * size - 0.5
        expressive = self.unturned(frame, np.stack(np.meshgrid(x, y), -1))
        above, below = self._expressions.layers(self.course.intensity[frame])
        return (
            expressive.astype(np.float32),
            above.back(expressive).astype(np.float32),
            below.back(expressive).astype(np.float32),
        )

    def expression(self, frame: int) -> tuple[tuple[Layer, Layer], np.ndarray]:
        """The way back to the portrait above and below the lips' line, and where the portrait's (68, 2) points lie, in
        a frame's expression."""
        intensity = self.course.intensity[frame]
        return self._expressions.layers(intensity), self._expressions.points(intensity)

    def unturned(self, frame: int, positions: np.ndarray) -> np.ndarray:
        """(H, W, 2) positions in the picture -> positions on the portrait in the frame's expression: camera, turn and
        identity undone."""
        subject = self.subject
        seen = (positions - self._offset) / self._scale + self._anchor
        field = subject.turn.field(*self.pose[frame])
        unturned = seen
        for _ in range(12):  # unturned + field(unturned) = seen, by fixed-point steps
            step = seen - PLATE.sample(field, unturned)
            change = float(np.abs(step - unturned).max())
            unturned = step
            if change < 0.03:
                break
        return unturned + PLATE.sample(subject.head.backward, unturned)

    def texture(self) -> Texture:
        """About as fine as the largest face of the set: much finer would alias, and all of a subject's clips can
        share it."""
        config = self.config
        largest = config.face[1] * min(config.width, config.height) / self.subject.face.unit
        return self.subject.texture(self.clip.expression, float(np.clip(round(largest * 4) / 4, 0.5, 6.0)))

    def exposure(self) -> np.ndarray:
        """(256,) uint8: what the camera makes of a gray level."""
        levels = np.clip(np.arange(256) / 255 * self.camera.gain, 0, 1) ** self.camera.gamma
        return np.clip(levels * 255 + 0.5, 0, 255).astype(np.uint8)

    def backdrop(self) -> np.ndarray:
        """(height, width, 3) uint8, before the exposure; made once."""
        if self._backdrop is None:
            self._backdrop = make_backdrop(self.camera.backdrop_seed, self.config.width, self.config.height)
        return self._backdrop

    def frames(self) -> Iterator[np.ndarray]:
        """Yields (height, width, 3) uint8, blue, green, red, without noise."""
        for _, picture in self._pictures(lambda frame: self._all_nodes()):
            yield picture

    def faces(self, margin: float = 0.12) -> Iterator[tuple[Window, np.ndarray]]:
        """The same pictures around the face alone, at a fraction of the cost.

        Args:
            margin: kept around the true landmarks, as a fraction of their extent.

        Yields:
            Rows and columns of the frame, and its pixels there, (h, w, 3) uint8. Where the face has left the
            frame, what is left of it.
        """
        return self._pictures(lambda frame: self._face_nodes(frame, margin))

    def _all_nodes(self) -> Window:
        size = self._step
        return slice(0, -(-self.config.height // size) + 2), slice(0, -(-self.config.width // size) + 2)

    def _face_nodes(self, frame: int, margin: float) -> Window:
        """The nodes that the blocks around the face need."""
        points, size = self.truth.landmarks[frame], self._step
        room = margin * (points.max(0) - points.min(0)) + 2
        low = np.floor((points.min(0) - room) / size).astype(int)
        high = np.floor((points.max(0) + room) / size).astype(int)
        window = []
        for axis, whole in ((1, self._all_nodes()[0]), (0, self._all_nodes()[1])):
            first = int(np.clip(low[axis], 0, whole.stop - 3))
            window.append(slice(first, int(np.clip(high[axis], first, whole.stop - 3)) + 3))
        return window[0], window[1]

    def _pixels(self, nodes: Window) -> Window:
        """The picture's rows and columns that the blocks of `nodes` (less the outermost ring) cover."""
        size, limits = self._step, (self.config.height, self.config.width)
        first, second = (
            slice(part.start * size, min((part.stop - 2) * size, limit))
            for part, limit in zip(nodes, limits, strict=True)
        )
        return first, second

    def _pictures(self, choose: Callable[[int], Window]) -> Iterator[tuple[Window, np.ndarray]]:
        """The part of every frame that `choose` names by its nodes."""
        import cv2

        texture = self.texture()
        scale, exposure, backdrop = texture.scale, self.exposure(), self.backdrop()
        portrait_mouth = mouth_shape(self.subject.face.landmarks)
        for frame, intensity in enumerate(self.course.intensity):
            nodes = choose(frame)
            window = self._pixels(nodes)
            behind = backdrop[window]
            expressive, above, below = self.sampling(frame, nodes)
            mouth = mouth_shape(self._expressions.points(intensity))
            x, y = mouth.coordinates(expressive)
            upper, lower = mouth.edges(x)
            share = above_share(x, y - (upper + lower) / 2, 0.5)[..., None]
            skin = to_texture(below + share * (above - below), scale)
            where, blocks = self._covered(skin, texture, behind.shape[:2])
            positions = self._enlarge(skin, blocks)[: where[0].stop - where[0].start]
            positions = np.ascontiguousarray(positions[:, : where[1].stop - where[1].start])
            sampled = cv2.remap(texture.layers, positions, None, cv2.INTER_LINEAR)
            person = cv2.remap(texture.person, positions, None, cv2.INTER_LINEAR)
            corner = np.array([window[1].start + where[1].start, window[0].start + where[0].start])
            points = self.truth.landmarks[frame] - corner
            layers = self._expressions.layers(intensity)
            self._mouth(sampled, texture, expressive[blocks], layers, points[48:68], mouth, portrait_mouth)
            painted = self._deepen(sampled, points, intensity)
            weight = person.astype(np.float32) / 255
            picture = behind.copy()
            picture[where] = cv2.blendLinear(painted, behind[where], weight, 1 - weight)
            yield window, cv2.LUT(picture, exposure)

    def _covered(
        self, positions: np.ndarray, texture: Texture, shape: tuple[int, int]
    ) -> tuple[Window, Window]:
        """The part of a picture of `shape` that the person may touch: as rows and columns of pixels, and of
        nodes (one more on every side)."""
        import cv2

        person = cv2.remap(texture.person, positions, None, cv2.INTER_LINEAR)
        person = cv2.dilate(person, np.ones((5, 5), np.uint8))
        pixels, nodes = [], []
        for axis, length in ((1, shape[0]), (0, shape[1])):
            hit = np.flatnonzero(person.max(axis)[1:-1])
            first, last = (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 1)
            pixels.append(slice(first * self._step, min(last * self._step, length)))
            nodes.append(slice(first, last + 2))
        return (pixels[0], pixels[1]), (nodes[0], nodes[1])

    def _mouth(
        self,
        sampled: np.ndarray,
        texture: Texture,
        expressive: np.ndarray,
        layers: tuple[Layer, Layer],
        lips: np.ndarray,
        mouth: Mouth,
        portrait_mouth: Mouth,
    ) -> None:
        """Paint the mouth's surroundings again at full resolution: upper lip, lower lip, and teeth between
        them."""

        size = self._step
        rows, columns = expressive.shape[:2]
        low = np.maximum(np.floor(lips.min(0) / size).astype(int) - 3, 0)
        high = np.minimum(np.ceil(lips.max(0) / size).astype(int) + 3, (columns - 2, rows - 2))
        if (high <= low).any():
            return
        (j0, i0), (j1, i1) = low, high
        blocks = (slice(i0, i1 + 2), slice(j0, j1 + 2))
        expressive = self._enlarge(expressive, blocks)
        painted = paint_lips(texture, expressive, layers, mouth, portrait_mouth, self.soft)
        height, width = sampled.shape[:2]
        target = sampled[i0 * size : min(i1 * size, height), j0 * size : min(j1 * size, width)]
        target[:] = np.clip(painted[: target.shape[0], : target.shape[1]] + 0.5, 0, 255).astype(np.uint8)

    def _deepen(self, sampled: np.ndarray, landmarks: np.ndarray, intensity: float) -> np.ndarray:
        """Apply the moving layer (fourth channel) in proportion to the expression; returns (H, W, 3)
        uint8."""

        picture = np.ascontiguousarray(sampled[..., :3])
        size = landmarks.max(0) - landmarks.min(0)
        height, width = picture.shape[:2]
        x0, y0 = np.clip(landmarks.min(0) - 0.2 * size, 0, (width, height)).astype(int)
        x1, y1 = np.clip(landmarks.max(0) + 0.2 * size, 0, (width, height)).astype(int)
        if x1 <= x0 or y1 <= y0:
            return picture
        factor = fold_factor(sampled[y0:y1, x0:x1, 3], intensity)
        face = picture[y0:y1, x0:x1].astype(np.float32) * factor
        picture[y0:y1, x0:x1] = np.clip(face + 0.5, 0, 255).astype(np.uint8)
        return picture

    def _enlarge(self, coarse: np.ndarray, nodes: Window) -> np.ndarray:
        """Bilinear values at every pixel of the blocks whose middles are `nodes`, less the outermost ring."""
        import cv2

        part = np.ascontiguousarray(coarse[nodes])
        rows, columns = part.shape[:2]
        size = self._step
        full = cv2.resize(part, (columns * size, rows * size), interpolation=cv2.INTER_LINEAR)
        return full[size:-size, size:-size]

    def noise(self) -> Iterator[np.ndarray]:
        """Yields (height, width) int16 camera noise for the luma, one per frame, gray levels."""
        import cv2

        height, width = self.config.height, self.config.width
        margin = 61
        white = self._noise_rng.standard_normal((height + margin, width + margin), dtype=np.float32)
        smooth = np.asarray(cv2.GaussianBlur(white, (0, 0), 0.6))  # a demosaiced sensor's noise is not white
        tile = np.round(smooth * (self.camera.noise / smooth.std())).astype(np.int16)
        for _ in self.course.intensity:
            y, x = self._noise_rng.integers(0, margin, 2)
            yield tile[y : y + height, x : x + width]
