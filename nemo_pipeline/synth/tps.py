"""Thin-plate splines in the plane, and sampling of what they give on a regular grid."""

from __future__ import annotations

import dataclasses

import numpy as np


def _kernel(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """r^2 log(r^2) of every pair, (M, N)."""
    squared = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(-1)
    return squared * np.log(np.maximum(squared, 1e-12))


@dataclasses.dataclass(frozen=True, slots=True)
class ThinPlate:
    """A smooth function of the plane that takes given values at given points (Bookstein 1989)."""

    centres: np.ndarray
    weights: np.ndarray
    affine: np.ndarray
    scale: float

    @classmethod
    def fit(cls, points: np.ndarray, values: np.ndarray, smoothing: float = 0.0) -> ThinPlate:
        """Through (or, with `smoothing` > 0, near) `values` (N, C) at `points` (N, 2).

        Args:
            smoothing: added to the kernel's diagonal, in units in which the points' spread is 1.
        """
        centre = points.mean(0)
        scale = float(np.abs(points - centre).max())
        unit_points = points / scale  # keeps the system well conditioned whatever the pixels
        count, channels = len(points), values.shape[1]
        affine = np.column_stack([np.ones(count), unit_points])
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _kernel(unit_points, unit_points) + smoothing * np.eye(count)
        system[:count, count:] = affine
        system[count:, :count] = affine.T
        solved = np.linalg.solve(system, np.vstack([values, np.zeros((3, channels))]))
        return cls(unit_points, solved[:count], solved[count:], scale)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(M, 2) -> (M, C)."""
        unit_points = points / self.scale
        affine = np.column_stack([np.ones(len(points)), unit_points])
        return _kernel(unit_points, self.centres) @ self.weights + affine @ self.affine


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """A regular grid of nodes: node (row, column) lies at x = left + column * step, y = top + row * step."""

    left: float
    top: float
    step: float
    columns: int
    rows: int

    @classmethod
    def over(cls, left: float, top: float, right: float, bottom: float, step: float) -> Grid:
        """Nodes from the left and top edges to at least the right and bottom ones."""
        columns = int(np.ceil((right - left) / step)) + 1
        rows = int(np.ceil((bottom - top) / step)) + 1
        return cls(left, top, step, columns, rows)

    def nodes(self) -> np.ndarray:
        """(rows, columns, 2) float64, x then y."""
        x = self.left + self.step * np.arange(self.columns)
        y = self.top + self.step * np.arange(self.rows)
        return np.stack(np.meshgrid(x, y), axis=-1)

    def sample(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Bilinear values of `field` (rows, columns, C) float32 at `points` (H, W, 2); constant outside."""
        import cv2

        x = ((points[..., 0] - self.left) / self.step).astype(np.float32)
        y = ((points[..., 1] - self.top) / self.step).astype(np.float32)
        values = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return values.reshape(*x.shape, -1)


def bilinear(grid: Grid, field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) -> (N, C) in float64; for the ground truth, where OpenCV's steps of 1/32 of a cell would be too
    coarse."""
    x = np.clip((points[:, 0] - grid.left) / grid.step, 0, grid.columns - 1.001)
    y = np.clip((points[:, 1] - grid.top) / grid.step, 0, grid.rows - 1.001)
    column, row = x.astype(int), y.astype(int)
    fx, fy = (x - column)[:, None], (y - row)[:, None]
    top = field[row, column] * (1 - fx) + field[row, column + 1] * fx
    bottom = field[row + 1, column] * (1 - fx) + field[row + 1, column + 1] * fx
    return top * (1 - fy) + bottom * fy
