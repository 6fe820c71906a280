"""Kernels whose threads exchange numbers through shared memory are caught where a barrier is left out of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from benchmarks import gpu_calls
from numbanet import functional as F
from numbanet.cuda import launch
from tests.cuda.ptx.executor import HostDevice, interpret
from tests.cuda.ptx.memory import Fault

_BARRIER = re.compile(r"bar\.sync\s+0;")


class Planting(HostDevice):
    """A device that leaves barriers out of one kernel: all (None), or the one of a number."""

    def __init__(self, name: str, number: int | None):
        super().__init__()
        self.name, self.number = name, number

    def run(self, kernel: Any, grid: Any, arguments: Sequence[Any], dtype: str) -> None:
        """Interpret a kernel, or what became of it."""
        if kernel.name.partition("[")[0] != self.name:
            return super().run(kernel, grid, arguments, dtype)
        text = kernel.ptx(dtype, self.capability)
        found = list(_BARRIER.finditer(text))
        for match in reversed(found if self.number is None else [found[self.number]]):
            text = text[: match.start()] + text[match.end() :]
        interpret(text, grid, kernel.threads, arguments, kernel.shared_bytes)


def convolution(groups: int) -> Any:
    def run(rng: np.random.Generator, device: str) -> None:
        x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((2, 8, 9, 9), (8, 8 // groups, 3, 3)))
        leaves = [nnet.tensor(array, device=device, requires_grad=True) for array in (x, weight)]
        F.conv2d(*leaves, padding=1, groups=groups).sum().backward()

    return run


def listed(name: str) -> Any:
    (found,) = [call.run for call in gpu_calls.calls() if call.name == name]
    return found


def layer_norm(x: Any, weight: Any) -> Any:
    return F.layer_norm(x, (2100,), weight)


def labelled(loss: Any) -> Any:
    def run(rng: np.random.Generator, device: str) -> None:
        x, target = rng.standard_normal((2, 2100)).astype(np.float32), rng.integers(0, 2100, 2)
        loss(nnet.tensor(x, device=device, requires_grad=True), nnet.tensor(target, device=device)).backward()

    return run


# Each with the barriers that alone matter: others guard what a loop writes again, and here it has no next round.
KERNELS = [
    ("conv_depthwise.convolve", convolution(8), "first"), ("conv_depthwise.gradient", convolution(8), "first"),
    ("conv_grouped_weight.group_gradient", convolution(2), "first"),
    ("moments.moments", listed("batch_norm (2, 8, 7, 9)"), "first last"),
    ("norm_backward.sums", listed("batch_norm (2, 8, 7, 9)"), "first last"),
    ("layer_norm.parameter_gradients", listed("layer_norm (2, 8, 7, 9)"), "first last"),
    ("loss.cross_entropy", listed("losses of 2 x 2100, mean"), ""),
    ("loss.cross_entropy_backward", listed("losses of 2 x 2100, mean"), "last"),
    ("total.finish", listed("losses of 2 x 2100, mean"), "first last"),
    ("total.sums", listed("huber_loss"), "first last"),
    ("reduce.columns_of_a_strip", listed("sum (2, 3)"), ""),
    ("reduce.pieces_of_a_row", listed("mean of many"), "first last"),
    ("softmax.softmax_rows", listed("losses of 2 x 2100, mean"), "last"),
    ("copy.turned", listed("transpose"), "first last"), ("index.add_up", listed("rows by their numbers"), "first"),
    ("optim.norm", listed("SGD"), "first last"),
    ("layer_norm.normalise_runs", gpu_calls.call("", layer_norm, (2, 2100), (2100,)).run, ""),
    ("layer_norm.run_gradients", gpu_calls.call("", layer_norm, (2, 2100), (2100,)).run, ""),
    ("margin.margin_rows", labelled(F.multi_margin_loss), ""),
    ("loss.nll", labelled(F.nll_loss), ""),
]
PLANTED = [
    pytest.param(kernel, run, number, id=f"{kernel} {word}")
    for kernel, run, alone in KERNELS
    for word, number in (("all", None), ("first", 0), ("last", -1))
    if word == "all" or word in alone
]


@pytest.mark.parametrize(("kernel", "run", "number"), PLANTED)
def test_a_barrier_too_few(kernel: str, run: Any, number: int | None) -> None:
    with launch.executor(Planting(kernel, number)), pytest.raises(Fault, match="race|before anybody wrote"):
        run(np.random.default_rng(0), "cuda")
