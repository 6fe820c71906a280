"""Launches as a CUDA graph.

A graph keeps the arguments that it was built with, but those of a node may be exchanged: launches of the graph from
then on have the new ones, and those that the GPU has yet to come to the ones of their time. So numbers that change from
one replay to the next (learning rates, the numbers of random draws: see `numbanet.cuda.launch.each`) are arguments like
all others, and nothing has to be brought to memory of the GPU before a replay, or to wait for the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from numbanet.cuda.launch import Launch
from numbanet.watch import Live

if TYPE_CHECKING:
    from numbanet.cuda.gpu import Buffer, Gpu, Loaded


class _Node(NamedTuple):
    """A launch in a graph."""

    handle: Any
    loaded: Loaded
    buffer: Buffer
    arguments: tuple[Any, ...]
    parameters: Any  # what the driver is told; they name the buffer


class Graph:
    """A graph of launches, one after the other, to be repeated on a GPU's stream.

    Parameters
    ----------
    gpu : Gpu
        The GPU of the thread.
    launches : sequence of Launch
    """

    def __init__(self, gpu: Gpu, launches: Sequence[Launch]):
        self._gpu, driver = gpu, gpu.driver
        # Built node by node, not captured from a stream: what other threads launch meanwhile is no part of it.
        self._graph = gpu.check(driver.cuGraphCreate(0))
        self._executable: Any = None
        self._nodes: list[_Node] = []
        for launch in launches:
            self._add(*launch)
        self._executable = gpu.check(driver.cuGraphInstantiate(self._graph, 0))
        self._changing = [node for node in self._nodes if any(isinstance(a, Live) for a in node.arguments)]

    def _add(self, kernel: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...], dtype: str) -> None:
        gpu, driver = self._gpu, self._gpu.driver
        loaded = gpu.loaded(kernel, dtype)
        held = tuple([gpu.held(a) if pointer else a for a, pointer in zip(arguments, loaded.pointers)])
        buffer, parameters = loaded.take(), driver.CUDA_KERNEL_NODE_PARAMS()
        loaded.write(gpu, buffer, held)
        parameters.kern, parameters.kernelParams = loaded.handle, buffer[2]
        parameters.gridDimX, parameters.gridDimY, parameters.gridDimZ = grid
        parameters.blockDimX, parameters.blockDimY, parameters.blockDimZ = kernel.threads, 1, 1
        parameters.sharedMemBytes = kernel.shared_bytes
        before = [node.handle for node in self._nodes[-1:]]
        handle = gpu.check(driver.cuGraphAddKernelNode(self._graph, before, len(before), parameters))
        self._nodes.append(_Node(handle, loaded, buffer, held, parameters))

    def launch(self) -> None:
        """Repeat the launches, with the numbers of now."""
        gpu, driver = self._gpu, self._gpu.driver
        for node in self._changing:
            node.loaded.write(gpu, node.buffer, node.arguments)
            gpu.check(driver.cuGraphExecKernelNodeSetParams(self._executable, node.handle, node.parameters))
        gpu.check(driver.cuGraphLaunch(self._executable, gpu.stream_handle()))

    def __del__(self) -> None:
        if hasattr(self, "_graph"):
            self._gpu.leave(partial(_destroy, self._gpu, self._graph, self._executable))


def _destroy(gpu: Gpu, graph: Any, executable: Any) -> None:
    try:
        if executable is not None:
            gpu.check(gpu.driver.cuGraphExecDestroy(executable))  # one that runs is done first
        gpu.check(gpu.driver.cuGraphDestroy(graph))
    except RuntimeError as error:  # raised wherever the GPU is used next
        raise RuntimeError(f"a graph that is no longer needed could not be destroyed: {error}") from None
