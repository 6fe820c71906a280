"""``numbanet warmup``: compile every kernel ahead, for images of machines and for continuous integration."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from numbanet.problem.base import FLOATS

if TYPE_CHECKING:
    from numbanet.cpu.compile import Kernel

HELP = "compile every kernel now, so that nothing is compiled later"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of warmup."""
    parser.add_argument("--dtypes", nargs="+", choices=FLOATS, default=list(FLOATS), help="default: all")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Compile what is not on disk yet, and print how many kernels there are and where they lie.

    Raises
    ------
    RuntimeError
        If compiled kernels are not kept: then nothing can be done ahead.
    """
    from tqdm import tqdm

    from numbanet import settings
    from numbanet.cpu.cache import cache_dir
    from numbanet.cpu.parallel import threading_layer

    if not settings.cache_enabled():
        raise RuntimeError("nothing can be compiled ahead: the kernel cache is off (see numbanet info)")
    start, compiled = time.perf_counter(), 0
    threading_layer()  # compiles what launches kernels
    todo = plan(args.dtypes)
    with tqdm(todo, unit="kernel", disable=args.quiet) as bar:
        for kernel, dtype in bar:
            bar.set_postfix_str(f"{kernel.name} {dtype}", refresh=False)
            compiled += not kernel.build(dtype).cache_hits
    seconds = time.perf_counter() - start
    print(f"{len(todo)} kernels in {cache_dir()}: {compiled} compiled, {len(todo) - compiled} there, {seconds:.0f} s")
    return 0


def plan(dtypes: list[str]) -> list[tuple[Kernel, str]]:
    """Return every kernel of the package with every dtype it is compiled for."""
    import importlib
    import pkgutil

    import numbanet.cpu
    from numbanet.cpu.compile import kernels

    for module in pkgutil.iter_modules(numbanet.cpu.__path__):
        importlib.import_module(f"numbanet.cpu.{module.name}")
    return [(kernel, dtype) for kernel in kernels() for dtype in dtypes]
