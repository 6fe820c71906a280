"""Measure which kernel is fastest for each convolution of a model, and remember it on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from numbanet import dispatch, measured, memory, random, settings, trusted
from numbanet.candidate import Arrays, Candidate
from numbanet.io.atomic import write_atomically
from numbanet.nn import Module
from numbanet.nn.mode import evaluating
from numbanet.problem.base import sizes
from numbanet.problem.pointwise import number
from numbanet.tape import enable_grad, no_grad
from numbanet.tensor import Tensor

_OPERATION = "conv2d"
_ROUNDS = 3  # samples of each kernel, at least
_FASTER = 0.97  # a kernel must take less than this share of the cost model's choice to count as an improvement


@dataclass(frozen=True)
class Choice:
    """The measurement of one problem.

    Attributes
    ----------
    problem : Problem
    estimated : str
        The kernel that the cost model would take.
    seconds : dict of str to float
        Seconds of a call, by kernel.
    """

    problem: Any
    estimated: str
    seconds: dict[str, float]

    @property
    def kernel(self) -> str:
        """The fastest kernel."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def gain(self) -> float:
        """Time of the estimated kernel over that of the fastest."""
        return self.seconds[self.estimated] / self.seconds[self.kernel]


@dataclass(frozen=True)
class Tuning:
    """What `tune` measured; ``str(...)`` is the table.

    Attributes
    ----------
    choices : tuple of Choice
        In the order in which the model met the problems.
    file : str
        Where it is remembered, or why it is not.
    """

    choices: tuple[Choice, ...]
    file: str

    def __str__(self) -> str:
        rows = [("convolution", "pass", "fastest", "ms", "gain", "others")]
        for choice in self.choices:
            others = sorted((s, name) for name, s in choice.seconds.items() if name != choice.kernel)
            rows.append((
                _words(choice.problem), choice.problem.which, choice.kernel,
                f"{choice.seconds[choice.kernel] * 1e3:.3f}", f"{choice.gain:.2f}",
                ", ".join(f"{name} {s * 1e3:.3f}" for s, name in others),
            ))  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        better = sum(choice.gain > 1 / _FASTER for choice in self.choices)
        lines.append(f"{len(self.choices)} problems, {better} with a faster kernel than estimated; {self.file}")
        return "\n".join(lines)

    __repr__ = __str__


def tune(model: Module, input_shape: tuple[int, ...], *, training: bool = True, seconds: float = 0.05) -> Tuning:
    """Measure every kernel that takes a convolution of a model, and use the fastest from now on.

    The choices hold in this process at once, and in later ones on a machine with the same CPU model and the same
    version of the kernels: they are kept in a file of the cache folder (see `numbanet.info`). They hold for any number
    of threads; measure with the number that will be used. Kernels round differently, so results may change in their
    last digits, within the expected errors that `numbanet.explain` prints.

    Parameters
    ----------
    model : Module
        Takes one tensor. Its parameters, gradients, buffers and mode are the same afterwards.
    input_shape : tuple of int
        Shape of a batch, such as (N, C, H, W); (C, H, W) stands for a batch of one. Another size of batch or image is
        another problem.
    training : bool
        Measure forward and backward as a training step meets them, where weights change from call to call; else the
        forward pass of inference alone, where kernels use weights that were prepared once.
    seconds : float
        Time for each kernel of each problem.

    Returns
    -------
    Tuning
        ``print`` it for the table.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or the model refuses the shape.
    RuntimeError
        Within ``numbanet.use(...)``: the kernels that it leaves out would not be measured.
    """
    if dispatch.conditions()[1]:
        raise RuntimeError("tune measures every kernel, and numbanet.use(...) leaves some out: tune outside of it")
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    shape = sizes("input_shape", input_shape)
    shape = (1, *shape) if len(shape) == 3 else shape
    if not 0 < number("seconds", seconds) < float("inf"):
        raise ValueError(f"seconds must be positive and finite, got {seconds}")
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    # No zeros: numbers of the usual size, of a generator of our own.
    values = memory.blank(shape, dtype)
    values[...] = np.random.default_rng(0).standard_normal(shape)
    images = Tensor(values)
    found: dict[str, Choice] = {}
    with _unchanged(model), dispatch.wrapped(_Measurer(found, training, seconds)):
        if training:
            _step(model, images)
        else:
            with evaluating(model), no_grad():
                model(images)
    file = _remember({name: choice.seconds for name, choice in found.items()})
    dispatch.renew()
    return Tuning(tuple(found.values()), file)


class _Measurer:
    """What `dispatch.wrapped` takes: candidates of convolutions are replaced by one that measures them all."""

    def __init__(self, found: dict[str, Choice], training: bool, seconds: float):
        self.found, self.training, self.seconds = found, training, seconds

    def __call__(self, problem: Any, fit: list[Candidate], chosen: Candidate) -> Candidate:
        if problem.operation != _OPERATION:
            return chosen
        fast = [candidate for candidate in fit if candidate.cost(problem) < float("inf")]
        if chosen not in fast:
            return chosen
        name = measured.key(problem, "cpu", settings.get_precision())

        def run(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
            if name not in self.found:
                times = self._measure(fast, problem, inputs, outputs)
                self.found[name] = Choice(problem, min(fast, key=lambda c: c.cost(problem)).name, times)
            best = next(candidate for candidate in fast if candidate.name == self.found[name].kernel)
            _call(best, problem, _prepared(best, problem, inputs), outputs)

        return replace(chosen, run=run, prepare=None, workspace_bytes=lambda problem: 0)

    def _measure(
        self, candidates: list[Candidate], problem: Any, inputs: Arrays, outputs: Arrays
    ) -> dict[str, float]:
        scratch = tuple(memory.empty(x.shape, x.dtype) if isinstance(x, np.ndarray) else None for x in outputs)
        operands = {c.name: _prepared(c, problem, inputs) for c in candidates}
        best = {c.name: float("inf") for c in candidates}
        for candidate in candidates:  # compiles
            _call(candidate, problem, operands[candidate.name], scratch)
        start, rounds = time.perf_counter(), 0
        while rounds < _ROUNDS or time.perf_counter() - start < self.seconds * len(candidates):
            for candidate in candidates:
                before = time.perf_counter()
                given = _prepared(candidate, problem, inputs) if self.training else operands[candidate.name]
                _call(candidate, problem, given, scratch)
                best[candidate.name] = min(best[candidate.name], time.perf_counter() - before)
            rounds += 1
        return best


def _prepared(candidate: Candidate, problem: Any, inputs: Arrays) -> Arrays:
    if candidate.prepare is None:
        return inputs
    return (inputs[0], candidate.prepare(problem, inputs[1]), *inputs[2:])


def _call(candidate: Candidate, problem: Any, inputs: Arrays, outputs: Arrays) -> None:
    size = candidate.workspace_bytes(problem)
    candidate.run(problem, inputs, outputs, memory.empty((size,), "uint8") if size else None)


def _step(model: Module, images: Tensor) -> None:
    """Run forward and backward in training mode, of the sum of everything that comes out."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        with enable_grad():
            results = list(_tensors(model(images)))
            for result in results[1:]:
                results[0] = results[0].sum() + result.sum()
            results[0].sum().backward()
    finally:
        for module, mode in modes:
            module.training = mode


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Give buffers, gradients and the default random generator the state that they had before."""
    buffers = [(buffer, buffer.data.copy()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    state = random.get_state()
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        random.set_state(state)
        for buffer, values in buffers:
            buffer.data[...] = values
            buffer.bump_version()
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _remember(table: dict[str, dict[str, float]]) -> str:
    """Add measurements to those of this process and of the file; return where they are, or why not."""
    if not settings.cache_enabled():
        measured.know({**measured.known(), **table})
        return "not kept: the cache is off"
    from numbanet.cpu.cache import source_hash

    file = measured.path()
    try:
        trusted.make(file.parent)
        with _alone(file.with_suffix(".lock")):
            table = {**measured.read(), **table}
            content = {"cpu": measured.cpu(), "kernels": source_hash(), "seconds": table}
            write_atomically(file, json.dumps(content, indent=1).encode())
        text = f"kept in {file}"
    except OSError as error:
        text = f"not kept: {error}"
    measured.know({**measured.known(), **table})
    return text


@contextmanager
def _alone(path: Any) -> Iterator[None]:
    """Hold a lock file, where the system has such locks: of two writers neither loses what the other adds."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _words(problem: Any) -> str:
    text = f"{problem.n}x{problem.c}x{problem.h}x{problem.w} -> {problem.k}, {problem.r}x{problem.s}"
    others = ("stride", problem.stride, (1, 1)), ("dilation", problem.dilation, (1, 1)), ("groups", problem.groups, 1)
    return text + "".join(f" {name} {value}" for name, value, usual in others if value != usual)
