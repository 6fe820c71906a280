"""All lines of the table, and the public functions that it must have."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numbanet as nnet
from numbanet import Tensor, amp, data, functional, io, models, nn, ops, optim, random, train, viz
from tests.fuzz import (
    choices,
    files,
    initial,
    layers,
    loops,
    methods,
    networks,
    operations,
    programs,
    streams,
    tensors,
    training,
)
from tests.fuzz.check import Line

# What no line calls, and why.
LEFT_OUT = {
    "Tensor.cuda": "needs a GPU: tests/cuda", "functional.to_device": "needs a GPU: tests/cuda",
    "ops.to_device": "needs a GPU: tests/cuda", "ops.count": "counts on a GPU: tests/cuda",
    "nn.UninitializedParameter": "what lazy layers hold until their first input: they have lines",
    "optim.Optimizer": "the base class of the optimizers",
    "optim.lr_scheduler.LRScheduler": "the base class of the schedules",
    "data.cifar10": "reads files: tests/data", "data.cifar100": "reads files: tests/data",
    "data.mnist": "reads files: tests/data", "data.read_idx": "reads files: tests/data",
    "numbanet.Tensor": "its methods have lines", "io.load_onnx": "reads files: tests/io and tests/fuzz_files",
    "models.GoogLeNetOutputs": "a tuple of tensors", "train.Interrupted": "an error: tests/train",
    "train.NonFiniteLoss": "an error: tests/train",
}  # fmt: skip
_NOT_OPERATIONS = {
    "__init__", "__init_subclass__", "__subclasshook__", "__hash__", "__class__", "__new__", "bump_version", "expose",
    "planned", "prepared", "stamp",
}  # fmt: skip


def lines() -> list[Line]:
    """Return all lines."""
    kernels = (operations, tensors, methods, layers, training)
    others = (initial, programs, choices, streams, files, networks, loops)
    return [line for part in (*kernels, *others) for line in part.lines()]


def _public(name: str, module: ModuleType) -> Iterator[str]:
    home = "numbanet." if hasattr(module, "__path__") else module.__name__  # a package hands on what its files have
    for attribute in getattr(module, "__all__", dir(module)):
        value = getattr(module, attribute)
        ours = hasattr(module, "__all__") or getattr(value, "__module__", "").startswith(home)
        if ours and callable(value) and not attribute.startswith("_"):
            yield f"{name}.{attribute}"


def _methods(name: str, owner: type) -> Iterator[str]:
    for attribute, value in vars(owner).items():
        if inspect.isfunction(getattr(value, "__func__", value)) and not attribute.startswith("_"):
            yield f"{name}.{attribute}"


def public() -> set[str]:
    """Return the names of all public functions, layers, optimizers, schedules and methods."""
    modules: dict[str, Any] = {
        "ops": ops, "functional": functional, "nn": nn, "optim": optim, "optim.lr_scheduler": optim.lr_scheduler,
        "data": data, "amp": amp, "numbanet": nnet, "nn.init": nn.init, "nn.utils": nn.utils, "random": random,
        "io": io, "models": models, "train": train, "viz": viz,
    }  # fmt: skip
    found = {name for prefix, module in modules.items() for name in _public(prefix, module)}
    for owner in (random.Generator, train.Meter, train.History):
        found |= set(_methods(f"{owner.__module__.split('.')[1]}.{owner.__name__}", owner))
    for owner in Tensor.__mro__[:-1]:
        for attribute, value in vars(owner).items():
            operator = attribute.startswith("__") and attribute.endswith("__")
            if inspect.isfunction(value) and (operator or not attribute.startswith("_")):
                found.add(f"Tensor.{attribute}")
    found -= {f"Tensor.{name}" for name in _NOT_OPERATIONS}
    return found
