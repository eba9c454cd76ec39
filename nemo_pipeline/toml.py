"""Settings as TOML, for people to read, change and use again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(table: str, settings: Mapping[str, Any]) -> str:
    """One table; what is None is left out.

    Examples:
        >>> from nemo_pipeline.toml import to_toml
        >>> print(to_toml("train", {"folds": 10, "epochs": None, "set": {"model.hidden": 256}}), end="")
        [train]
        folds = 10
        set = { "model.hidden" = 256 }
    """
    lines = [f"{name} = {_value(value)}" for name, value in settings.items() if value is not None]
    return "\n".join([f"[{table}]", *lines]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_value(str(name))} = {_value(one)}" for name, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's texts are TOML's, but for DEL.
    return json.dumps(value).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
