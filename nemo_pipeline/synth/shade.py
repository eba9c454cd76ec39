"""What the camera sees at any positions of a frame: every pixel by itself, without the renderer's coarse grid.

Slower than `ClipRenderer.frames`, and the same picture: a reference for it, and the way to render a face directly in
the mean shape, which passes through no frame's pixels.
"""

from __future__ import annotations

import numpy as np

from nemo_pipeline.geometry import Template, shipped_mean_shape, shipped_triangles
from nemo_pipeline.synth.layers import mouth_shape
from nemo_pipeline.synth.lips import fold_factor, paint_lips, to_texture
from nemo_pipeline.synth.render import ClipRenderer


def shade(renderer: ClipRenderer, frame: int, positions: np.ndarray) -> np.ndarray:
    """Colours at positions of one frame, without noise.

    Args:
        renderer: the clip.
        frame: its number.
        positions: (H, W, 2), pixels of the frame, x then y.

    Returns:
        (H, W, 3) uint8, blue, green, red.
    """
    import cv2

    texture, intensity = renderer.texture(), float(renderer.course.intensity[frame])
    layers, points = renderer.expression(frame)
    expressive = renderer.unturned(frame, np.asarray(positions, np.float64)).astype(np.float32)
    face = renderer.subject.face
    painted = paint_lips(
        texture, expressive, layers, mouth_shape(points), mouth_shape(face.landmarks), renderer.soft
    )
    sampled = np.clip(painted + 0.5, 0, 255).astype(np.uint8)
    colours = sampled[..., :3].astype(np.float32) * fold_factor(sampled[..., 3], intensity)
    there = np.asarray(positions, np.float32)
    behind = cv2.remap(renderer.backdrop(), there, None, cv2.INTER_LINEAR).astype(np.float32)
    skin = to_texture(layers[0].back(expressive), texture.scale)
    person = cv2.remap(texture.person, skin, None, cv2.INTER_LINEAR).astype(np.float32)[..., None] / 255
    blended = np.clip(behind + person * (np.clip(colours, 0, 255) - behind) + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(blended, renderer.exposure()))


class MeanShapeView:
    """Renders faces directly in the mean shape: `MeanShapeView()(renderer, frame)` -> (size, size) uint8, gray.

    Args:
        size: side of the face, pixels.
        margin: as `PrepConfig.margin`.
        finer: each pixel is the mean of this many by this many.
    """

    def __init__(self, size: int = 114, margin: float = 0.02, finer: int = 3) -> None:
        self.size, self.finer = size, finer
        self._template = Template(shipped_mean_shape(), shipped_triangles(), size * finer, margin)
        self._coarse = Template(shipped_mean_shape(), shipped_triangles(), size, margin)

    def __call__(self, renderer: ClipRenderer, frame: int) -> np.ndarray:
        """One frame's face by its true landmarks; 0 outside the hull."""
        import cv2

        template, side = self._template, self.size * self.finer
        grid = np.tile(renderer.truth.landmarks[frame].mean(0), (side * side, 1))
        grid[template.inside] = template.sampling_inside(renderer.truth.landmarks[frame])
        gray = cv2.cvtColor(shade(renderer, frame, grid.reshape(side, side, 2)), cv2.COLOR_BGR2GRAY)
        # The mean over what lies inside the hull, where a pixel's middle does.
        weight = np.zeros((side, side), np.float32)
        weight.ravel()[template.inside] = 1
        total = cv2.resize(gray * weight, (self.size, self.size), interpolation=cv2.INTER_AREA)
        share = cv2.resize(weight, (self.size, self.size), interpolation=cv2.INTER_AREA)
        face = np.zeros(self.size * self.size, np.uint8)
        inside = self._coarse.inside
        mean = total.ravel()[inside] / np.maximum(share.ravel()[inside], 1e-6)
        face[inside] = np.clip(mean + 0.5, 0, 255)
        return face.reshape(self.size, self.size)
