"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from numbanet.nn.module import Module


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards give each of its modules the mode that it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
