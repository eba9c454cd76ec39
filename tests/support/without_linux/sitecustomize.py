"""On a PYTHONPATH, this hides from nemo's own modules what only Linux (or only POSIX) offers.

Other packages keep it: whether they run on another system is theirs to say.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
from typing import Any

_OURS = ("nemo_pipeline", "siam_model", "nemo_cli")
_import = builtins.__import__


def _without(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    owner = (globals or {}).get("__name__", "")
    if name in ("fcntl", "resource", "select", "pwd", "grp") and (
        owner.startswith(_OURS)
        or (owner == "__main__" and (globals or {}).get("__package__", "").startswith(_OURS))
    ):
        raise ImportError(f"no module named {name!r} here (hidden by the test)")
    return _import(name, globals, locals, fromlist, level)


class _NoPrctl(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        if name == "prctl":
            raise AttributeError(name)
        return super().__getattr__(name)


builtins.__import__ = _without
ctypes.CDLL = _NoPrctl  # type: ignore[misc]
for _name in ("sched_getaffinity", "sched_setaffinity"):
    if hasattr(os, _name):
        delattr(os, _name)
sys.without_linux = True  # type: ignore[attr-defined]
