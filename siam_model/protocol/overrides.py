"""Typed settings from text: `model.hidden=256`, `train.learning_rate=3e-4`, `model.channels=16,24,32`."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nemo_pipeline.errors import SettingsError
from siam_model.config import SIAMConfig, TrainConfig, preset

_SECTIONS: dict[str, type] = {"model": SIAMConfig, "train": TrainConfig}
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
#: What fields are called in the paper or in other tools.
_ELSEWHERE = {
    "h": "hidden",
    "lambda": "l2",
    "weight_decay": "l2",
    "wd": "l2",
    "alpha": "rmsprop_alpha",
    "decay": "rmsprop_alpha",
    "attention": "attention_mechanism",
    "d": "attention_dim",
}


def configure(
    preset_name: str, overrides: Mapping[str, str] | None = None, **forced: Any
) -> tuple[SIAMConfig, TrainConfig]:
    """The preset with single fields replaced.

    Args:
        preset_name: `paper` or `small`.
        overrides: `section.field` -> text, with section `model` or `train`.
        forced: `section__field=value` pairs of the right type already; None leaves a field alone.

    Raises:
        NemoError: an unknown preset or field (the closest known one is named), or a value that does not fit.
    """
    try:
        configs: dict[str, Any] = dict(zip(("model", "train"), preset(preset_name), strict=True))
    except ValueError as error:
        raise SettingsError(f"{str(error)[0].upper()}{str(error)[1:]}", "preset") from None
    changes: dict[str, dict[str, Any]] = {"model": {}, "train": {}}
    for name, text in (overrides or {}).items():
        section, field = _find(name)
        changes[section][field] = _parse(name, text, get_type_hints(_SECTIONS[section])[field])
    for name, value in forced.items():
        section, _, field = name.partition("__")
        if value is not None:
            changes[section][field] = value
    for section, values in changes.items():
        try:
            configs[section] = dataclasses.replace(configs[section], **values)
        except ValueError as error:
            raise SettingsError(
                f"The setting {section}.{error}", *(f"{section}.{name}" for name in values)
            ) from None
    return configs["model"], configs["train"]


def split_assignments(pairs: tuple[str, ...] | list[str]) -> dict[str, str]:
    """`["model.hidden=256"]` -> `{"model.hidden": "256"}`. Raises NemoError when there is no `=`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise SettingsError(
                f"`overrides` takes FIELD=VALUE, as in `model.hidden=256`; {pair!r} is not of that form.",
                "overrides",
            )
        found[name.strip()] = value.strip()
    return found


def _find(name: str) -> tuple[str, str]:
    """Section and field of `section.field`. Raises NemoError that names the closest known setting."""
    known = [f"{s}.{f.name}" for s, cls in _SECTIONS.items() for f in dataclasses.fields(cls)]
    if name in known:
        section, _, field = name.partition(".")
        return section, field
    near = _near(name, known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(known)}."
    raise SettingsError(f"There is no setting {name!r}; {hint}", name)


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Settings that may be meant: by the field's name, its initials, what it is called elsewhere, or its letters."""
    field = name.rpartition(".")[2].lower()
    fields = {setting: setting.partition(".")[2] for setting in known}
    rules: tuple[Callable[[str], bool], ...] = (
        lambda known_field: known_field == field,
        lambda known_field: "".join(word[0] for word in known_field.split("_")) == field,
        lambda known_field: known_field == _ELSEWHERE.get(field),
        lambda known_field: field in known_field.split("_"),
    )
    for rule in rules:
        found = [setting for setting, known_field in fields.items() if rule(known_field)]
        if found:
            return found[:3]
    close = difflib.get_close_matches(field, fields.values(), n=1)
    return [setting for setting, known_field in fields.items() if known_field in close]


def _parse(name: str, text: str, kind: Any) -> Any:
    """`text` as a value of the annotated type `kind`. Raises NemoError that says what was expected."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() == "none":
            return None
        return _parse(name, text, next(a for a in args if a is not type(None)))
    if name == "model.attention_position" and text.lower() == "none":
        return 0
    if origin is Literal:
        if text not in args:
            raise SettingsError(
                f"The setting {name} takes one of {', '.join(args)}; {text!r} is not one of them.", name
            )
        return text
    if origin is tuple:
        return tuple(_parse(name, part.strip(), args[0]) for part in text.strip("()[] ").split(","))
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise SettingsError(f"The setting {name} takes true or false; {text!r} is neither.", name)
        return text.lower() in _TRUE
    try:
        if "_" in text:  # 2_3 would be 23
            raise ValueError
        return kind(text)
    except ValueError:
        want = "a whole number" if kind is int else "a number"
        raise SettingsError(f"The setting {name} takes {want}; {text!r} is not one.", name) from None
