"""What the fields of settings hold: checked alike for the preparation, the network and its training."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any


def check_kinds(config: Any) -> None:
    """Check the `int`, `float`, `bool` and `str` fields of a (frozen) dataclass, and make them Python's own numbers.

    A whole number given for a `float` becomes one: 0 and 0.0 are one setting, and must be one in files.

    Raises:
        ValueError: names the field, its value and what it must be.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        if kind == "int":
            ok, what = whole(value), "a whole number"
        elif kind == "float":
            ok, what = finite(value), "a finite number"
        elif kind == "bool":
            ok, what = isinstance(value, bool), "true or false"
        elif kind == "str":
            ok, what = isinstance(value, str), "text"
        else:
            continue
        if not ok:
            raise ValueError(f"{field.name} is {value!r}; it must be {what}.")
        if kind in ("int", "float"):
            object.__setattr__(config, field.name, int(value) if kind == "int" else float(value))


def finite(value: Any) -> bool:
    """Whether a value is a finite number (True and False are none)."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def whole(value: Any) -> bool:
    """Whether a value is a whole number (True and False are none)."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
