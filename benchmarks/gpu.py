"""Check every CUDA kernel on a GPU, and time it against PyTorch's.

::

    python -m benchmarks.gpu                                  # everything, within --seconds (440)
    python -m benchmarks.gpu --sections check --only "conv2d|matmul"
    python -m benchmarks.gpu --sections layers,training --seconds 240

It needs Numba, numba-cuda, cuda-core and, for times, PyTorch with CUDA; no network, and in a checkout no installation.
It writes one JSON and one Markdown file.
The exit status is 2 where no GPU can be used, 1 where a result is wrong or something failed, else 0: times that miss
their targets are reported, and fail nothing.

Sections are `check` (every kernel on fresh random operands: outputs poisoned, against the definition in float64, two
runs equal), `layers` (convolutions of the layer tables), `memory` (functions that the memory's speed limits) and
`training` (steps of ResNet-50 and of the 64-256-256 net, eager and captured). Each has a share of the time, hands on
what it does not need, and says what it left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if importlib.util.find_spec("numbanet") is None:  # where nothing can be installed, the checkout will do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

if TYPE_CHECKING:
    from benchmarks.gpu_report import Result  # which imports numba-cuda

SHARES = {"check": 4.0, "layers": 4.0, "memory": 1.0, "training": 2.5}  # of the time that is left
SECONDS = 440.0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    def sections(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in SHARES:
                raise argparse.ArgumentTypeError(f"sections are {', '.join(SHARES)}, got {name!r}")
        return names

    def positive(text: str) -> float:
        value = float(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be positive, got {text}")
        return value

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--sections", type=sections, default=tuple(SHARES), help="comma-separated")
    parser.add_argument("--seconds", type=positive, default=SECONDS, help="for everything together")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="checks whose name matches")
    parser.add_argument("--seed", type=int, help="of the checks' operands; drawn if not given")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--markdown", type=Path, default=Path("gpu.md"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    options, start = _parsed(arguments), time.monotonic()
    from numbanet.cuda import unavailable_reason

    reason = unavailable_reason()
    if reason is not None:
        print(f"no GPU can be used: {reason}", file=sys.stderr)
        return 2
    from benchmarks import gpu_report

    seed = int(np.random.SeedSequence().entropy % 2**32) if options.seed is None else options.seed
    result = gpu_report.Result(_machine(), seed)
    end, left = start + options.seconds, [name for name in SHARES if name in options.sections]
    while left:
        name, began = left[0], time.monotonic()
        until = began + (end - began) * SHARES[name] / sum(SHARES[each] for each in left)
        notes = result.notes.setdefault(left.pop(0), [])
        try:
            if name == "check":
                _check(options.only, result, until)
            else:
                _time(name, result, until)
        except Exception as error:  # the other sections are worth having
            notes.append(gpu_report.Note(f"{type(error).__name__}: {error}", failed=True))
        result.seconds[name] = time.monotonic() - began
        _write(options, result)  # after each section: what was found is kept, whatever follows
    print(options.markdown.read_text().partition("## Times")[0])
    return 1 if result.faults else 0


def _write(options: argparse.Namespace, result: Result) -> None:
    from benchmarks import gpu_report

    options.json.write_text(gpu_report.to_json(result))
    options.markdown.write_text("\n".join(gpu_report.to_markdown(result)) + "\n")


def _check(only: re.Pattern, result: Result, until: float) -> None:
    """Fill in the verdicts."""
    import numbanet as nnet
    from benchmarks import gpu_calls, gpu_check, gpu_report
    from numbanet import dispatch
    from numbanet.cuda import launch

    if getattr(launch.current(), "device", None) is not None:  # a real one
        seconds = (until - time.monotonic()) / 2
        result.notes["check"].append(gpu_report.Note(_compiled(only, seconds)))
    checker, rng = gpu_check.Checker(), np.random.default_rng(result.seed)
    calls = [call for call in gpu_calls.calls() if only.search(call.name)]
    result.verdicts = checker.verdicts
    for done, call in enumerate(calls):
        if time.monotonic() > until:
            text = f"no time for {len(calls) - done} of {len(calls)} calls: {call.name} and what follows"
            result.notes["check"].append(gpu_report.Note(text))
            break
        for precision in call.precisions:
            try:
                with nnet.precision(precision), dispatch.wrapped(checker):
                    call.run(rng, "cuda")
            except Exception as error:
                text = f"{call.name} in {precision}: {type(error).__name__}: {error}"
                result.notes["check"].append(gpu_report.Note(text, failed=True))
    result.missing = checker.missing()


def _compiled(only: re.Pattern, seconds: float) -> str:
    """Compile ahead; return what to note."""
    from benchmarks import gpu_ahead
    from numbanet.cuda import launch

    try:
        return gpu_ahead.compile_all(only.pattern, launch.capability(), seconds)
    except Exception as error:  # the checks compile what is missing
        return f"nothing was compiled ahead: {type(error).__name__}: {error}"


def _time(name: str, result: Result, until: float) -> None:
    """Fill in the rows of a section."""
    from benchmarks import gpu_time

    if importlib.util.find_spec("torch") is None:
        result.notes[name].append(gpu_time.Note("left out: PyTorch is not installed"))
        return
    sections = {"layers": gpu_time.layer_rows, "memory": gpu_time.memory_rows, "training": gpu_time.training_rows}
    with _on_cpu(), gpu_time.shared_stream():
        for found in sections[name](until):
            if isinstance(found, gpu_time.Note):
                result.notes[name].append(found)
            else:
                result.rows.append(found)


@contextmanager
def _on_cpu() -> Iterator[None]:
    """Within a ``with`` block, networks are built on the CPU, where PyTorch's take their parameters from."""
    import numbanet as nnet

    before = nnet.get_device()
    nnet.set_device("cpu")
    try:
        yield
    finally:
        nnet.set_device(before)


def _machine() -> str:
    """Return the GPU, and the versions."""
    import numba

    from numbanet import __version__
    from numbanet.cuda import launch

    device = getattr(launch.current(), "device", None)
    name = "no GPU: an interpreter of PTX" if device is None else device.name
    capability = "".join(map(str, launch.capability()))
    versions = f"numbanet {__version__}, Python {platform.python_version()}, numba {numba.__version__}"
    if importlib.util.find_spec("torch") is not None:
        import torch

        versions += f", torch {torch.__version__} with cuDNN {torch.backends.cudnn.version()}"
    return f"{name}, compute capability {capability}; {versions}"


if __name__ == "__main__":
    sys.exit(main())
