"""Kill a training at random moments, again and again; what is on disk must load, and go on bit for bit.

::

    python -m tests.reliability.kill --times 200                 # kill -9
    python -m tests.reliability.kill --times 200 --signal INT    # Ctrl-C twice, a random moment apart

The training checkpoints every few milliseconds, so that most moments lie within or beside a save. Its processes are
forked from one that has compiled the kernels. Every state found on disk is compared with the one that a training which
nobody disturbed had at that place.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from numbanet import io
from numbanet.train.history import History
from tests.tiny import comparable, final_state, make

_EPOCHS = 40
_LIMIT = 300.0  # seconds until a process counts as hung: the machine may be busy


@dataclass
class Report:
    """What was found."""

    signals: int = 0
    trainings: int = 0
    begun_anew: int = 0
    """Processes that were ended before there was a checkpoint."""
    states: Counter[str] = field(default_factory=Counter)
    """Checkpoints that were read after a signal, and found to be right."""
    parts: int = 0
    """Temporary files that killed processes left, and the next one removed."""

    def __str__(self) -> str:
        seen = ", ".join(f"{count} times {name}" for name, count in sorted(self.states.items()))
        return (
            f"{self.signals} signals, {self.trainings} trainings ended with the weights of the undisturbed one, bit for"
            f" bit; read after a signal and right: {seen}; no checkpoint yet: {self.begun_anew} times; temporary files"
            f" left by killed processes and removed by the next: {self.parts}; lost: nothing"
        )


def run(folder: Path, times: int, ending: signal.Signals, seed: int = 0) -> Report:
    """Disturb trainings until `times` processes got a signal; AssertionError if anything is not as it must be."""
    rng, report = np.random.default_rng(seed), Report()
    states: list[Any] = []
    whole = folder / "whole"
    began = time.perf_counter()
    make(_EPOCHS).fit(whole, epochs=_EPOCHS, callbacks=[lambda record, model: states.append(final_state(whole))])
    length = time.perf_counter() - began
    while report.signals < times:
        parts = folder / f"disturbed-{report.trainings}"
        finished = False
        while not finished and report.signals < times:
            finished = _disturbed(parts, ending, rng, length)
            report.signals += not finished
            _check(parts, states, report, ending)
        if not finished:
            assert _wait(_start(parts)) == 0
        assert final_state(parts) == states[-1], "the end is another one"
        assert not list(parts.glob(".*")), "temporary files remain"
        report.trainings += 1
        shutil.rmtree(parts)
    return report


def _start(folder: Path) -> int:
    """Fork a process that trains, or goes on with the training, and return its number."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child is within its `try`
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's BLAS has threads, and Python warns of forks then
        child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    status = 130
    try:  # Ctrl-C may come anywhere, twice: the second one finds the first in the inner `finally` at worst
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - a process that is killed closes nothing
            make(_EPOCHS).fit(folder, epochs=_EPOCHS, resume=(folder / "last.safetensors").exists())
            status = 0
        except Exception:
            status = 1
        finally:
            os._exit(status)
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    """Return the exit status of a process; AssertionError if it hangs."""
    limit = time.monotonic() + _LIMIT
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    raise AssertionError(f"a process hung for {_LIMIT:g} s")


def _disturbed(folder: Path, ending: signal.Signals, rng: np.random.Generator, length: float) -> bool:
    """Train in a process that gets the signal after a while; return whether it had ended before."""
    child = _start(folder)
    time.sleep(rng.uniform(0, length / 4))
    os.kill(child, ending)
    if ending == signal.SIGINT:
        time.sleep(rng.choice([0.0, 0.0005, 0.003]))
        os.kill(child, ending)  # a zombie takes it, too
    status = _wait(child)
    assert status in (0, 130, -ending), f"exit status {status}"
    return status == 0


def _check(folder: Path, states: list[Any], report: Report, ending: signal.Signals) -> None:
    """Read all that a training left."""
    report.parts += len(list(folder.glob(".*.part")))
    last = folder / "last.safetensors"
    if not last.exists():
        report.begun_anew += 1
    for path in sorted(folder.glob("*.safetensors")):
        state = comparable(io.load_state(path))
        done = len(state["history"])
        if not state["batch"]:
            assert done and state == states[done - 1], f"{path.name} after epoch {done} is another one"
        else:
            assert ending == signal.SIGINT and path == last, "saved in the middle of an epoch"
        report.states[path.name] += 1
    if (folder / "log.jsonl").exists():
        logged = comparable(History.read(folder).to_list())
        assert logged == states[-1]["history"][: len(logged)], "the log differs from the undisturbed one"


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description="Kill trainings at random moments.")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), args.times, signal.Signals[f"SIG{args.signal}"], args.seed)
    print(f"{report} ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
