"""Time CUDA kernels against PyTorch's on one stream: calls on rotating operands, repeated as a graph, between events.

Both libraries' calls are captured as CUDA graphs, so what Python does between two launches is in neither time.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import numbanet as nnet
from benchmarks import backends, cases, layers, nets, steps
from benchmarks.layers import ConvLayer
from numbanet import dispatch, ops
from numbanet.cuda import launch
from numbanet.problem.conv import conv2d_problem

BATCHES = {"resnet50": 64, "cifar": 256, "vgg16": 64, "mobilenet_v2": 128}
TRAINED = {"resnet50": 64, "wide256": 256}
ROTATED = 256 << 20  # bytes of operands that take turns: several times what the cache holds
SAMPLE = 0.02  # seconds between two events
Run = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """One row.

    Attributes
    ----------
    section, name, which : str
        Table, layer or function, pass.
    precision : str
        That of both libraries, and for us what was allowed: "strict" is without Winograd, "bf16 mma" without wgmma.
    kernel : str
        What numbanet chose.
    seconds, torch_seconds : float
        Of a call.
    rate, ceiling : float
        What was reached, and the measured ceiling: flops of the direct method, or bytes of least traffic, a second; 0
        where the number means nothing.
    """

    section: str
    name: str
    which: str
    precision: str
    kernel: str
    seconds: float
    torch_seconds: float
    rate: float = 0.0
    ceiling: float = 0.0

    @property
    def ratio(self) -> float:
        """PyTorch's time over ours: above 1 we are faster."""
        return self.torch_seconds / self.seconds


@contextmanager
def shared_stream() -> Iterator[None]:
    """Within a ``with`` block, let PyTorch use numbanet's stream, and cuDNN measure its algorithms."""
    import torch

    torch.backends.cudnn.benchmark = True
    with torch.cuda.stream(torch.cuda.ExternalStream(launch.current().stream_handle())):
        yield


def _torch_precision(precision: str) -> None:
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def graph_of(calls: Sequence[Run]) -> Run:
    """Return the function that repeats calls of numbanet as one graph."""
    for call in calls:
        call()  # compiles, and packs what is packed once
    launches: list[launch.Launch] = []
    with launch.recording(launches):
        for call in calls:
            call()
    return launch.Recording(launches).run


def _torch_graph_of(calls: Sequence[Run]) -> Run:
    """Return the function that repeats calls of PyTorch as one graph."""
    import torch

    for call in (*calls, *calls[:2]):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for call in calls]  # each writes to memory of its own, as ours do
    del kept
    return graph.replay


def measured(run: Run, calls: int = 1) -> float:
    """Return the seconds of a call, by events on the stream: the best of three samples."""
    import torch

    def sample(loops: int) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(loops):
            run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / loops

    run()
    loops = max(1, min(1000, int(SAMPLE / max(sample(1), 1e-6))))
    return min(sample(loops) for _ in range(3)) / calls


def matmul_ceiling(precision: str, size: int = 8192) -> float:
    """Return the flops a second of PyTorch's product of two large matrices."""
    import torch

    _torch_precision(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * size**3 / measured(lambda: a @ b)


def copy_ceiling(size: int = 1 << 30) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    import torch

    source = torch.zeros(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / measured(lambda: target.copy_(source))


# ------------------------------------------------------------------------------------------------ layers


def _variants() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return, by the precision's name in the table, that of numbanet, and the kernels that may not run."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {name: (name, ()) for name in ("float32", "strict")}
    found |= {f"{name} mma": (name, ("cuda.wgmma_tma", "cuda.wgmma", "cuda.wgmma_turned")) for name in ("tf32", "bf16")}
    warpgroups = launch.capability() == (9, 0, "a")
    return found | ({f"{name} wgmma": (name, ()) for name in ("tf32", "bf16")} if warpgroups else {})


def _our_layer(layer: ConvLayer, which: str, operands: Sequence[Any]) -> Run:
    x, weight, grad = operands
    geometry = layer.stride, layer.pad, layer.dilation, layer.groups
    if which == "forward":
        return partial(ops.conv2d, x, weight, None, *geometry)
    if which == "backward_input":
        return partial(ops.conv2d_backward_input, grad, weight, layer.x_shape, *geometry)
    return partial(ops.conv2d_backward_weight, x, grad, layer.weight_shape, *geometry)


def _sets(layer: ConvLayer) -> int:
    return max(1, min(64, ROTATED // layer.bytes()))


def _their_layer(layer: ConvLayer, which: str, precision: str) -> float:
    import torch

    _torch_precision(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    shapes = layer.x_shape, layer.weight_shape, layer.y_shape
    calls = []
    for _ in range(_sets(layer)):
        made = [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes]
        x, weight, grad = (each.contiguous(memory_format=torch.channels_last) for each in made)
        calls.append(cases.torch_conv_call(layer, which, x, weight, grad))
    return measured(_torch_graph_of(calls), len(calls))


def _images(shape: tuple[int, ...]) -> Any:
    """Return images on the GPU, channels last; a million numbers are drawn, and repeated."""
    n, c, h, w = shape
    values = np.resize(cases.random(n, 1 << 20), n * h * w * c).reshape(n, h, w, c)
    return launch.upload(values).transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class Note:
    """What a section has to say beside its rows: what was left out for lack of time, or what failed."""

    text: str
    failed: bool = False


Rows = Iterator[Timing | Note]


def each(jobs: Sequence[tuple[str, Callable[[], Iterator[Timing]]]], until: float) -> Rows:
    """Yield the rows of named jobs while there is time; one that fails costs its own rows only."""
    for done, (name, rows) in enumerate(jobs):
        if time.monotonic() > until:
            yield Note(f"no time for {len(jobs) - done} of {len(jobs)}: {name} and what follows")
            return
        try:
            yield from rows()
        except Exception as error:
            yield Note(f"{name}: {type(error).__name__}: {error}", failed=True)


def layer_rows(until: float) -> Rows:
    """Yield a row for each layer, pass and precision, in an order that makes a part of them a fair sample."""
    ceilings = {precision: matmul_ceiling(precision) for precision in ("float32", "tf32", "bf16")}
    jobs = [
        (f"{table} {layer.name} {which}", partial(_passes, table, layer.batch(batch), which, ceilings))
        for table, batch in BATCHES.items()
        for layer in layers.TABLES[table]
        for which in layers.PASSES
    ]
    random.Random(0).shuffle(jobs)
    yield from each(jobs, until)


def _passes(table: str, layer: ConvLayer, which: str, ceilings: dict[str, float]) -> Iterator[Timing]:
    theirs = {precision: _their_layer(layer, which, precision) for precision in ceilings}
    shapes = layer.x_shape, layer.weight_shape, layer.y_shape
    calls = [_our_layer(layer, which, [_images(shape) for shape in shapes]) for _ in range(_sets(layer))]
    problem = conv2d_problem(
        which, layer.x_shape, layer.weight_shape, "float32", layer.stride, layer.pad, layer.dilation, layer.groups
    )
    names = [candidate.name for candidate in dispatch.candidates("cuda", "conv2d", which)]
    for variant, (precision, excluded) in _variants().items():
        with nnet.precision(precision), nnet.use(*(name for name in names if name not in excluded)):
            chosen = dispatch.choose(problem, "cuda").name
            seconds = measured(graph_of(calls), len(calls))
        key = "float32" if precision == "strict" else precision
        rate = layer.flops(which) / seconds
        yield Timing(table, layer.name, which, variant, chosen, seconds, theirs[key], rate, ceilings[key])


# ------------------------------------------------------------------------------------------------ memory

# Functions of (F, x, y, v): x and y are images, v a number for each channel; and how often an image crosses the memory.
STREAMING: dict[str, tuple[Callable[..., Any], float]] = {
    "relu": (lambda F, x, y, v: F.relu(x), 2),
    "gelu": (lambda F, x, y, v: F.gelu(x), 2),
    "sigmoid": (lambda F, x, y, v: F.sigmoid(x), 2),
    "add": (lambda F, x, y, v: x + y, 3),
    "add channel": (lambda F, x, y, v: x + v.reshape(1, -1, 1, 1), 2),
    "batch_norm inference": (lambda F, x, y, v: F.batch_norm(x, v, v), 2),
    "batch_norm training": (lambda F, x, y, v: F.batch_norm(x, None, None, v, v, True), 3),
    "max_pool2d 2": (lambda F, x, y, v: F.max_pool2d(x, 2), 1.25),
    "avg_pool2d 2": (lambda F, x, y, v: F.avg_pool2d(x, 2), 1.25),
    "sum H W": (lambda F, x, y, v: x.sum((2, 3)), 1),
    "pad 1": (lambda F, x, y, v: F.pad(x, (1, 1, 1, 1)), 2),
}
IMAGES = (128, 64, 56, 56)


def memory_rows(until: float) -> Rows:
    """Yield a row for each function that memory limits."""
    ceiling = copy_ceiling()
    yield from each([(name, partial(_streamed, name, ceiling)) for name in STREAMING], until)


def _streamed(name: str, ceiling: float) -> Iterator[Timing]:
    import torch

    function, crossings = STREAMING[name]
    x, y = (nnet.Tensor(_images(IMAGES)) for _ in range(2))
    v = nnet.tensor(np.linspace(0.5, 2, IMAGES[1], dtype=np.float32), device="cuda")
    a, b = (torch.randn(IMAGES, device="cuda").contiguous(memory_format=torch.channels_last) for _ in range(2))
    w = torch.linspace(0.5, 2, IMAGES[1], device="cuda")
    with nnet.no_grad(), torch.no_grad():
        # Operands take turns: the cache holds neither.
        ours = graph_of([partial(function, nnet.functional, *pair, v) for pair in ((x, y), (y, x))])
        theirs = _torch_graph_of([partial(function, torch.nn.functional, *pair, w) for pair in ((a, b), (b, a))])
        seconds, torch_seconds = measured(ours, 2), measured(theirs, 2)
    rate = crossings * 4 * math.prod(IMAGES) / seconds
    yield Timing("memory", name, "forward", "float32", "", seconds, torch_seconds, rate, ceiling)


# ------------------------------------------------------------------------------------------------ training


def training_rows(until: float) -> Rows:
    """Yield a row for each network, precision, and way to run: eager, and captured."""
    jobs = [
        (f"{name} in {precision}", partial(_steps, name, batch, precision))
        for precision in ("tf32", "float32")
        for name, batch in TRAINED.items()
    ]
    yield from each(jobs, until)


def _step(name: str, batch: int, backend: str) -> Run:
    """Return a training step of a library, on the GPU."""
    b, model = backends.get(backend), nets.model(name, backend)
    operands = (b.tensor(array).to("cuda") for array in steps.images(name, batch))  # which keeps their order in memory
    return partial(steps.training_step(b, model.to("cuda")), *operands)


def our_steps(name: str, batch: int) -> tuple[Run, Run]:
    """Return a training step of numbanet, and a captured one that is replayed; both are warm.

    Raises
    ------
    RuntimeError
        If it is run all the same.
    """
    eager, other = (_step(name, batch, "numbanet") for _ in range(2))
    captured = nnet.capture(other.func)  # type: ignore[attr-defined]
    replayed = partial(captured, *other.args)  # type: ignore[attr-defined]
    for step in (eager, eager, replayed, replayed, replayed):
        step()
    if captured.replays != 1:
        raise RuntimeError("the captured step is run, not replayed: NUMBANET_VERBOSE=1 says why")
    return eager, replayed


def _steps(name: str, batch: int, precision: str) -> Iterator[Timing]:
    _torch_precision(precision)
    theirs = _step(name, batch, "torch:channels_last")
    for _ in range(3):
        theirs()
    with nnet.precision(precision):
        ours, captured = our_steps(name, batch)
        eager = measured(ours), measured(theirs)
        replayed = measured(captured), measured(_torch_graph_of([theirs]))
    label = f"{name} batch {batch}"
    yield Timing("training", label, "eager", precision, "", *eager)
    yield Timing("training", label, "captured", precision, "", *replayed)
