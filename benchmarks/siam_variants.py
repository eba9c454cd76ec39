"""The variants of SIAM that benchmarks/predict.py and benchmarks/train.py time, in the order in which the package's
optimisations are switched on, and what both report."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, print_table
from plain_siam import PlainSIAM, Roof

from siam_model import SIAM
from siam_model import model as siam
from siam_model.devices import autocast, resolve_device
from siam_model.layers import Recurrence
from siam_model.training.passes import compile_appearance


class Variant(NamedTuple):
    """One row of the tables: its name, what it switches on (each keeps what those before it do), its precision, and the
    kind of device that it is of ("": both)."""

    name: str
    what: str
    precision: str = "32"
    device: str = ""


VARIANTS = (
    Variant("plain", "float32, channels first, PyTorch's response normalisation, all frames at once"),
    Variant(
        "own normalisation",
        "the package's model, channels first, all frames at once, recurrence step by step",
    ),
    Variant("channels last", "maps with channels last"),
    Variant("in cache", "16 frames at a time through the convolutions: the package's default", device="cpu"),
    Variant("one call", "the recurrence in one call of cuDNN", device="cuda"),
    Variant("bf16", "--precision bf16-mixed", "bf16-mixed"),
    Variant("compiled", "torch.compile, in training the package's default", "bf16-mixed", "cuda"),
    Variant("roof", "convolutions and linear layers alone"),
    Variant("roof bf16", "the same in bfloat16", "bf16-mixed"),
)


@contextlib.contextmanager
def variant(name: str, device: torch.device) -> Iterator[torch.nn.Module]:
    """The module of one row of `VARIANTS`, with later optimisations switched off while the context lasts."""
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        made: torch.nn.Module
        if name == "plain":
            made = PlainSIAM()
        elif name.startswith("roof"):
            made = Roof()
        else:
            made = SIAM()
            made.max_frames_per_pass = 10**9
            if name == "own normalisation":
                stack.enter_context(mock.patch.object(SIAM, "_chunk", _channels_first))
            if name in ("own normalisation", "channels last"):
                stack.enter_context(mock.patch.object(siam, "FRAMES_IN_CACHE", 10**9))
                stack.enter_context(mock.patch.object(Recurrence, "scan", Recurrence.steps))
        made.to(device)
        if name == "compiled" and not compile_appearance(made, "bf16-mixed", print):
            raise SystemExit("torch.compile does not work here.")
        yield made


def _channels_first(self: Any, prepare: Any, frames: Tensor, *place: Tensor) -> Any:
    x = frames[place] if place else frames
    return self.appearance((x if prepare is None else prepare(x))[:, None])


def age_of(module: torch.nn.Module, frames: Tensor) -> Tensor:
    """(B,) what `module` says of standardised frames (B,T,114,114)."""
    out = module(frames)
    return out.age if hasattr(out, "age") else out


def options(doc: str | None) -> argparse.ArgumentParser:
    """What both benchmarks take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="threads of a CPU")
    parser.add_argument(
        "--frames", type=int, default=0, help="frames in a pass (128 on a CPU, 2048 on a GPU)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Least time of `repeats` calls after one that warms up: processor time on a CPU, so that other work on the machine
    disturbs little, and wall time on a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    best = float("inf")
    for number in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            best = min(best, clock() - started)
    return best


def run(
    title: str,
    arguments: argparse.Namespace,
    case: Callable[[torch.nn.Module, Tensor], Callable[[], Any]],
    more: dict[str, Any] | None = None,
) -> None:
    """Time `case(module, frames)` of every variant; print the table and write the JSON, with what `more` adds."""
    device = resolve_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    count = arguments.frames or (128 if device.type == "cpu" else 2048)
    frames = torch.randn(count // 32, 32, 114, 114, device=device)
    results: list[dict[str, Any]] = []
    variants = [one for one in VARIANTS if one.device in ("", device.type)]
    for name, what, precision, _ in variants:
        with variant(name, device) as module:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            step = case(module, frames)

            def call(step: Callable[[], Any] = step, precision: str = precision) -> None:
                with autocast(precision, device):
                    step()

            taken = seconds(call, device, arguments.repeats) / len(frames) / frames.shape[1]
            memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
        results.append({"variant": name, "what": what, "frame_s": taken, "gpu_mb": memory})
        print(f"{name} done", file=sys.stderr)
    plain = results[0]["frame_s"]
    roofs = {"32": results[-2]["frame_s"], "bf16-mixed": results[-1]["frame_s"]}
    peaks = {kind: peak_flops(kind, device) for kind in ("32", "bf16-mixed")}
    print_table(
        f"{title}, {_device_name(device)}, {count} frames in a pass",
        ["variant", "what", "ms a frame", "frames/s", "times plain", "times the roof"],
        [
            [
                r["variant"], r["what"], f"{r['frame_s'] * 1e3:.3g}", f"{1 / r['frame_s']:.4g}",
                f"{plain / r['frame_s']:.2f}", f"{r['frame_s'] / roofs[kind]:.2f}",
            ]
            for r, (_, _, kind, _) in zip(results, variants, strict=True)
        ],
    )  # fmt: skip
    print(
        "matrix product, GFLOP/s: " + ", ".join(f"{kind} {value / 1e9:.0f}" for kind, value in peaks.items())
    )
    if arguments.json:
        facts = machine_facts() | {"device": _device_name(device), "peak_flops": peaks}
        arguments.json.write_text(json.dumps({"machine": facts, "cases": results, **(more or {})}, indent=1))


def peak_flops(precision: str, device: torch.device) -> float:
    """Floating-point operations a second of one large matrix product."""
    side = 2048 if device.type == "cpu" else 8192
    kind = torch.float32 if precision == "32" else torch.bfloat16
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 3)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, driver CUDA {torch.version.cuda}"
    return f"{machine_facts()['processor']}, {torch.get_num_threads()} thread(s)"
