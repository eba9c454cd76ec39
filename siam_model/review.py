"""What a model saw in the videos of a prepared file, for the page of `nemo review`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nemo_pipeline.store import FaceDataset
from siam_model.explain import cell_weights, largest_heat
from siam_model.external import check_faces
from siam_model.predict import LoadedModel


def attention_for_page(model: LoadedModel, data: FaceDataset) -> Callable[[int], dict[str, Any]]:
    """Row of /videos -> JSON types: `age` (years), `weights` (T), and where the model has spatial attention, `maps`
    (T cells as M * M numbers), `cells` (S,M: how much each counts at each pixel, along both axes) and `largest`, the
    largest value of a heat map over the face.

    Raises:
        NemoError: the model cannot predict these faces.
    """
    check_faces(model.card, data)

    def attention(row: int) -> dict[str, Any]:
        frames = data[row].frames
        seen = model.predict(frames)
        found: dict[str, Any] = {
            "age": round(seen.age, 2),
            "weights": [round(float(weight), 6) for weight in seen.temporal_weights],
        }
        if seen.spatial_attention is not None:
            found["cells"] = cell_weights(model.config).round(5).tolist()
            found["maps"] = seen.spatial_attention.reshape(len(frames), -1).astype(float).round(4).tolist()
            found["largest"] = largest_heat(frames, seen.spatial_attention, model.config) or 1.0
        return found

    return attention
