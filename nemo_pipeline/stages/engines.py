"""The two landmark engines, which run the same networks: `litert` directly, `mediapipe` through MediaPipe's Face
Landmarker. Each is imported where it is asked for."""

from __future__ import annotations

from nemo_pipeline.stages.landmarks import Engine


def load_engine(name: str) -> Engine:
    """The engine of that name, loaded. Raises NemoError where its library is missing."""
    if name == "mediapipe":
        from nemo_pipeline.stages.engine_mediapipe import MediapipeEngine

        return MediapipeEngine()
    from nemo_pipeline.stages.engine_litert import LitertEngine

    return LitertEngine()
