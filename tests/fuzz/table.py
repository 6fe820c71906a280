"""All lines of the table, and the public functions that it must have."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from numbanet import Tensor, amp, data, functional, nn, ops, optim
from tests.fuzz import layers, methods, operations, tensors, training
from tests.fuzz.check import Line

# What no line calls, and why.
LEFT_OUT = {
    "Tensor.cuda": "needs a GPU: tests/cuda", "functional.to_device": "needs a GPU: tests/cuda",
    "ops.to_device": "needs a GPU: tests/cuda", "ops.count": "counts on a GPU: tests/cuda",
    "nn.UninitializedParameter": "what lazy layers hold until their first input: they have lines",
    "optim.Optimizer": "the base class of the optimizers",
    "optim.lr_scheduler.LRScheduler": "the base class of the schedules",
    "data.Augmentation": "a type",
    "data.cifar10": "reads files: tests/data", "data.cifar100": "reads files: tests/data",
    "data.mnist": "reads files: tests/data", "data.read_idx": "reads files: tests/data",
}  # fmt: skip
_NOT_OPERATIONS = {
    "__init__", "__init_subclass__", "__subclasshook__", "__hash__", "__class__", "__new__", "bump_version", "expose",
    "planned", "prepared", "stamp",
}  # fmt: skip


def lines() -> list[Line]:
    """Return all lines."""
    return [*operations.lines(), *tensors.lines(), *methods.lines(), *layers.lines(), *training.lines()]


def _public(name: str, module: ModuleType) -> Iterator[str]:
    for attribute in getattr(module, "__all__", vars(module)):
        if not attribute.startswith("_") and callable(getattr(module, attribute)):
            yield f"{name}.{attribute}"


def public() -> set[str]:
    """Return the names of all public functions, layers, optimizers, schedules and methods."""
    modules: dict[str, Any] = {
        "ops": ops, "functional": functional, "nn": nn, "optim": optim, "optim.lr_scheduler": optim.lr_scheduler,
        "data": data, "amp": amp,
    }  # fmt: skip
    found = {name for prefix, module in modules.items() for name in _public(prefix, module)}
    for owner in Tensor.__mro__[:-1]:
        for attribute, value in vars(owner).items():
            operator = attribute.startswith("__") and attribute.endswith("__")
            if inspect.isfunction(value) and (operator or not attribute.startswith("_")):
                found.add(f"Tensor.{attribute}")
    found -= {f"Tensor.{name}" for name in _NOT_OPERATIONS}
    return found
