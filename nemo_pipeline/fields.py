"""Records in JSON: dataclasses written as plain values, read back and checked, by one rule for all of them.

A file of an earlier version lacks fields, one of a later version has more. A missing field takes its default (or
what was so before it existed: `added`), one without a default is an error; an unknown one is passed over, or refused
where it decides about numbers (`strict`). A value of the wrong type is always an error.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

_T = TypeVar("_T")


def added(default: Any, *, before: Any = dataclasses.MISSING) -> Any:
    """Declare a settings field that files of earlier versions lack: `smooth: str = added("head", before="4253h")`.

    `before` (the default where it is left out) says what those files were made with, so it can never change. At this
    value the field is neither written nor part of a fingerprint, so that files from before the field existed stay
    files of the same settings.
    """
    return dataclasses.field(
        default=default, metadata={"before": default if before is dataclasses.MISSING else before}
    )


def plain(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON types (tuples become lists), without `added` ones that are as before."""
    return {
        field.name: _plain_value(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if not ("before" in field.metadata and getattr(config, field.name) == field.metadata["before"])
    }


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item) for item in value]
    return {k: _plain_value(v) for k, v in value.items()} if isinstance(value, dict) else value


def from_record(cls: type[_T], values: Any, *, strict: bool = False) -> _T:
    """The dataclass `cls` from what JSON gives, the inverse of `plain`; nested dataclasses, too.

    Args:
        strict: refuse unknown fields: a later version wrote them, and they change what the others mean.

    Raises:
        ValueError: names the field that is missing, unknown or of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{_shown(values)} is not an object with fields")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = sorted(str(name) for name in set(values) - set(fields))
    if strict and unknown:
        raise ValueError(
            f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(fields))}. A newer nemo may know it"
        )
    kinds, given = typing.get_type_hints(cls), {}
    for name, field in fields.items():
        if name in values:
            given[name] = _read(kinds[name], values[name], name)
        elif "before" in field.metadata:
            given[name] = field.metadata["before"]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name} is missing")
    return cls(**given)


def _read(kind: Any, value: Any, name: str) -> Any:
    """`value` as `kind`. Raises ValueError."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        try:
            return from_record(kind, value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (one for one in inner if one is not type(None))
        return _read(kind, value, name)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        values = [one.value for one in kind]
        if value not in values:
            raise ValueError(f"{name} is {_shown(value)}; it must be one of {', '.join(map(str, values))}")
        return kind(value)
    if origin is Literal:
        ok, what = isinstance(value, str) and value in inner, "one of " + ", ".join(map(str, inner))
    elif origin in (tuple, list):
        ok, what = isinstance(value, (list, tuple)), "a list"
        if ok and origin is tuple and inner[-1] is not Ellipsis:
            ok, what = len(value) == len(inner), f"a list of {len(inner)}"
    elif origin is dict:
        ok, what = isinstance(value, dict) and all(isinstance(key, str) for key in value), "an object"
    elif kind in _KINDS:
        ok, what = _KINDS[kind][0](value), _KINDS[kind][1]
    else:
        ok, what = isinstance(value, kind), f"of the type {kind.__name__}"
    if not ok:
        raise ValueError(f"{name} is {_shown(value)}; it must be {what}")
    if origin in (tuple, list):
        each = inner if origin is tuple and inner[-1] is not Ellipsis else inner[:1] * len(value)
        return origin(_read(k, v, f"{name}[{i}]") for i, (k, v) in enumerate(zip(each, value, strict=True)))
    if origin is dict:
        return {key: _read(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    return kind(value) if kind in (int, float) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_kinds(config: Any) -> None:
    """Check the `int`, `float`, `bool` and `str` fields of a (frozen) dataclass, and make them Python's own numbers.

    A whole number given for a `float` becomes one: 0 and 0.0 are one setting, and must be one in files.

    Raises:
        ValueError: names the field, its value and what it must be.
    """
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), kinds[field.name]
        if kind not in _KINDS:
            continue
        ok, what = _KINDS[kind]
        if not ok(value) or (kind is float and not finite(value)):
            raise ValueError(
                f"{field.name} is {value!r}; it must be {what if kind is not float else 'a finite number'}."
            )
        if kind in (int, float):
            object.__setattr__(config, field.name, kind(value))


def finite(value: Any) -> bool:
    """Whether a value is a finite number (True and False are not)."""
    return _number(value) and math.isfinite(value)


def _number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, NaN and infinity too."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value) is not None
    except OverflowError:
        return False


def whole(value: Any) -> bool:
    """Whether a value is a whole number (True and False are not)."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


#: Kind -> whether a value is one, and what it is called. A number in a record may be NaN: one in settings may not.
_KINDS: dict[Any, tuple[Any, str]] = {
    int: (whole, "a whole number"),
    float: (_number, "a number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "text"),
}
