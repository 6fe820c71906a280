"""``numbanet warmup``: compile kernels ahead, for images of machines and for continuous integration.

The CPU's kernels are few, and all are compiled. The GPU's are made for what a model needs, so models go through a
training step and an inference; that needs the CUDA compiler, and no GPU.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from numbanet import settings
from numbanet.cli.options import at_least
from numbanet.cuda.probe import INSTALL
from numbanet.problem.base import FLOATS
from numbanet.settings import PRECISIONS

if TYPE_CHECKING:
    from numbanet.cpu.compile import Kernel

HELP = "compile kernels now, so that nothing is compiled later"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of warmup."""
    parser.add_argument("--dtypes", nargs="+", choices=FLOATS, help="default: all; on a GPU float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="whose kernels (default: cpu)")
    parser.add_argument("--arch", default="90", help="compute capability of the GPU, such as 80 (default: 90)")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", default=["resnet18", "mobilenet_v2"],
        help="whose kernels of the GPU (default: resnet18 mobilenet_v2)",
    )  # fmt: skip
    parser.add_argument("--batch", type=at_least(1), default=32, help="images of a batch on the GPU (default: 32)")
    parser.add_argument("--size", type=at_least(32), default=224, help="pixels of their sides (default: 224)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="arithmetic of the GPU")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Compile what is not on disk yet, and print how many kernels there are and where they lie.

    Raises
    ------
    RuntimeError
        If compiled kernels are not kept, or there is no compiler: then nothing can be done ahead.
    ValueError
        If there is no such model or architecture.
    """
    if not settings.cache_enabled():
        raise RuntimeError("nothing can be compiled ahead: the kernel cache is off (see numbanet info)")
    return _run_gpu(args) if args.device == "cuda" else _run_cpu(args)


def _run_cpu(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from numbanet.cpu.cache import cache_dir
    from numbanet.cpu.parallel import prepare

    start, compiled = time.perf_counter(), 0
    prepare()
    todo = plan(args.dtypes or list(FLOATS))
    with tqdm(todo, unit="kernel", disable=args.quiet) as bar:
        for kernel, dtype in bar:
            bar.set_postfix_str(f"{kernel.name} {dtype}", refresh=False)
            compiled += not kernel.build(dtype).cache_hits
    seconds = time.perf_counter() - start
    print(f"{len(todo)} kernels in {cache_dir()}: {compiled} compiled, {len(todo) - compiled} there, {seconds:.0f} s")
    return 0


def _run_gpu(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from numbanet import models
    from numbanet.cuda import ahead, launch

    start, capability = time.perf_counter(), ahead.parse(args.arch)
    if not launch.has_compiler():
        raise RuntimeError(f"the CUDA compiler is not installed: {INSTALL}")
    from numbanet.cuda.compile import STORE

    before = STORE.count(".cubin")
    with tqdm(unit="kernel", disable=args.quiet) as bar:

        def compiled(kernel: Any, dtype: str) -> None:
            bar.set_postfix_str(f"{kernel.name} {dtype}", refresh=False)
            bar.update()

        compiler: Any = ahead.Compiler(capability, compiled)  # with what of an executor a step needs
        for name in args.models:
            for dtype in args.dtypes or ["float32"]:
                with launch.executor(compiler):
                    model = models.get(name, in_channels=3, image_size=args.size)
                step_ahead(compiler, model, (args.batch, 3, args.size, args.size), dtype, args.precision)
    there, seconds = len(compiler.kernels), time.perf_counter() - start
    fresh = STORE.count(".cubin") - before
    print(f"{there} kernels in {STORE.folder()}: {fresh} compiled, {there - fresh} there, {seconds:.0f} s")
    return 0


def step_ahead(compiler: Any, model: Any, shape: tuple[int, ...], dtype: str, precision: str) -> None:
    """Let a model go through a training step (with SGD and Adam) and an inference on a device that compiles."""
    import numpy as np

    import numbanet as nnet
    from numbanet import functional as F
    from numbanet import nn, optim
    from numbanet.cuda import launch

    with launch.executor(compiler), settings.precision(precision):
        there = model.to("cuda").to(np.dtype(dtype))
        images = nnet.tensor(np.zeros(shape, dtype), device="cuda")
        labels = nnet.tensor(np.zeros(shape[0], np.int64), device="cuda")
        optimizers = optim.SGD(there.parameters(), momentum=0.9, weight_decay=1e-4), optim.AdamW(there.parameters())
        for _ in range(2):  # SGD's first step is one of its own
            for optimizer in optimizers:
                optimizer.zero_grad()
            F.cross_entropy(there.train()(images), labels).backward()
            optim.clip_grad_norm_(there.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
        with nnet.no_grad():
            F.softmax(there.eval()(images), 1)
            nn.fuse(there)(images)


def plan(dtypes: list[str]) -> list[tuple[Kernel, str]]:
    """Return every kernel of the package with every dtype it is compiled for."""
    import importlib
    import pkgutil

    import numbanet.cpu
    from numbanet.cpu.compile import kernels

    for module in pkgutil.iter_modules(numbanet.cpu.__path__):
        importlib.import_module(f"numbanet.cpu.{module.name}")
    return [(kernel, dtype) for kernel in kernels() for dtype in dtypes]
