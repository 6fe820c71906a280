"""Compile what the checks launch before they do, by as many processes as there are cores.

A process takes a second or two for each of several hundred kernels: one alone, longer than a whole run may.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np

import numbanet as nnet
from benchmarks import gpu_calls, gpu_check
from numbanet import dispatch
from numbanet.candidate import Arrays, Candidate
from numbanet.cuda import launch
from numbanet.cuda.ahead import Capability, Compiler


class Share(Compiler):
    """A device that compiles one of `count` shares of all kernels, and computes nothing."""

    def __init__(self, capability: Capability, number: int, count: int):
        super().__init__(capability)
        self._number, self._count = number, count

    def run(self, kernel: Any, grid: Any, arguments: Sequence[Any], dtype: str) -> None:
        """Compile a kernel, if it is of this share."""
        if zlib.crc32(f"{kernel.name} {dtype}".encode()) % self._count == self._number:
            super().run(kernel, grid, arguments, dtype)


def _all_that_fit(problem: Any, fit: list[Candidate], chosen: Candidate) -> Candidate:
    """Return a kernel that launches what the checks do."""

    def run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
        for candidate in fit:
            gpu_check.call(candidate, problem, inputs, outputs)

    return replace(chosen, run=run, prepare=None, workspace_bytes=lambda problem: 0)


def compile_share(only: str, capability: Capability, number: int, count: int, until: float) -> int:
    """Compile one of `count` shares of the kernels of the calls whose name matches; return how many those are."""
    device, rng = Share(capability, number, count), np.random.default_rng(0)
    for call in gpu_calls.calls():
        for precision in call.precisions if re.search(only, call.name) else ():
            if time.time() > until:
                return len(device.kernels)
            # What is wrong with a call, its check tells.
            with suppress(Exception), launch.executor(device), nnet.precision(precision):
                with dispatch.wrapped(_all_that_fit):
                    call.run(rng, "cuda")
    return len(device.kernels)


def compile_all(only: str, capability: Capability, seconds: float) -> str:
    """Compile for so long at most; return what was done."""
    start, count = time.time(), os.cpu_count() or 1
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        shares = [pool.submit(compile_share, only, capability, n, count, start + seconds) for n in range(count)]
        found = sum(share.result() for share in shares)
    return f"{found} kernels compiled, or found, by {count} processes in {time.time() - start:.0f} s"
