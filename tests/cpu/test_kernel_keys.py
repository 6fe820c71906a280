"""Keys of the kernel cache: no two kernels share one, and a change of what a kernel calls changes it."""

from __future__ import annotations

import importlib
import pkgutil

from numbanet import cpu
from numbanet.cpu.cache import KernelCache
from numbanet.cpu.compile import Kernel


def key(function):
    cache = KernelCache(function)
    return cache._name, cache._code


def test_no_two_kernels_share_a_key():
    kernels = {}
    for module in pkgutil.iter_modules(cpu.__path__):
        for value in vars(importlib.import_module(f"numbanet.cpu.{module.name}")).values():
            if isinstance(value, Kernel):
                kernels[id(value)] = value
    assert len(kernels) > 20
    assert len({key(kernel.function) for kernel in kernels.values()}) == len(kernels)


def first(x):
    return abs(x) + 1.0


def test_names_and_constants_are_part_of_the_key():
    def variant(code):
        changed = type(first)(code, {})
        changed.__module__, changed.__qualname__ = first.__module__, first.__qualname__
        return key(changed)

    code = first.__code__
    assert variant(code) == key(first)
    assert variant(code.replace(co_names=("float",))) != key(first)
    assert variant(code.replace(co_consts=(None, 2.0))) != key(first)
