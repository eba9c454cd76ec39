"""A clip with a model's attention over the face, drawn in a child. Both sides of the job, with arrays in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nemo_pipeline.batch.process import JobFailed
from nemo_pipeline.batch.worker import Pool
from nemo_pipeline.geometry import Template
from nemo_pipeline.store.files import leftovers
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.supervise import ChildDied, ChildTimeout
from nemo_pipeline.view.attention import Attention


def heat_job(
    path: Path,
    target: Path,
    attention: Attention,
    template: Template,
    arrays: Path,
    *,
    title: str,
    note: str,
    stream: int = -1,
) -> dict[str, Any]:
    """What the child is told. Writes `arrays` (.npz), which the caller removes: the child reads it."""
    values = {
        name: getattr(attention, name)
        for name in ("frame_index", "landmarks", "weights", "maps", "rows", "columns")
        if getattr(attention, name) is not None
    }
    np.savez(arrays, mean_shape=template.mean_shape, triangles=template.triangles, **values)
    return {
        "do": "heat",
        "path": str(path),
        "target": str(target),
        "arrays": str(arrays),
        "size": template.size,
        "margin": template.margin,
        "largest": attention.largest,
        "title": title,
        "note": note,
        "stream": stream,
    }


def draw_job(job: dict[str, Any], progress: Callable[[int], None]) -> None:
    """The child's side. Raises NemoError when the clip cannot be drawn."""
    from nemo_pipeline.view.heat_video import draw_heat_video

    with np.load(job["arrays"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    template = Template(arrays["mean_shape"], arrays["triangles"], job["size"], job["margin"])
    attention = Attention(
        frame_index=arrays["frame_index"],
        landmarks=arrays["landmarks"],
        weights=arrays["weights"],
        maps=arrays.get("maps"),
        rows=arrays.get("rows"),
        columns=arrays.get("columns"),
        largest=job["largest"],
    )
    draw_heat_video(
        Path(job["path"]),
        Path(job["target"]),
        attention,
        template,
        title=job["title"],
        note=job["note"],
        stream=job["stream"],
        progress=progress,
    )


def draw_in_child(
    job: dict[str, Any],
    pool: Pool,
    *,
    timeout: float | None = None,
    on_frames: Callable[[int], None] | None = None,
    undone: str = "",
) -> str:
    """Have the job done; answers why there is no picture, "" where all is well.

    Args:
        undone: how that sentence begins. Default: that the job's `target` was not drawn.

    Raises:
        NemoError: nothing can work (installation, disk full).
    """
    return str(answer_of_child(job, pool, timeout=timeout, on_frames=on_frames, undone=undone)["note"])


def answer_of_child(
    job: dict[str, Any],
    pool: Pool,
    *,
    timeout: float | None = None,
    on_frames: Callable[[int], None] | None = None,
    undone: str = "",
) -> dict[str, Any]:
    """As `draw_in_child`: that sentence as "note", and what else the job answers."""
    undone = undone or f"{escape_controls(job['target'])} was not drawn"
    slot, child = pool.acquire()
    keep = False
    try:
        answer = child.ask(job, timeout, on_frames)
        keep = True
        return answer
    except ChildDied as death:
        return {"note": f"{undone}: the process that did it {death.reason}."}
    except ChildTimeout:
        return {"note": f"{undone} within {timeout:g} s."}
    except JobFailed as fault:
        keep = True
        return {"note": f"{undone}, a fault of nemo: {fault}"}
    finally:
        pool.release(slot, child, keep)
        if not keep:  # it was killed, and what it was writing shows a face
            for path in leftovers(Path(job["target"])):
                path.unlink(missing_ok=True)
