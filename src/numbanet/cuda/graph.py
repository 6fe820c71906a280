"""Launches as a CUDA graph.

A graph keeps the arguments that it was built with. Numbers that change from one replay to the next (`numbanet.watch`'s
`Live` arrays: learning rates, the numbers of random draws) are therefore read from memory of the GPU, side by side in
one block, to which the host's are copied before each replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numbanet.cuda.launch import Launch
from numbanet.device_array import DeviceArray, contiguous_in
from numbanet.watch import Live

if TYPE_CHECKING:
    from numbanet.cuda.gpu import Gpu

_STEP = 16  # bytes: where the numbers of an array may begin


class Graph:
    """A graph of launches, to be repeated on a GPU's stream.

    Parameters
    ----------
    gpu : Gpu
    launches : sequence of Launch
    """

    def __init__(self, gpu: Gpu, launches: Sequence[Launch]):
        self._gpu, self._places = gpu, dict[tuple[int, int], tuple[int, np.ndarray]]()
        size = 0
        for array in (argument for launch in launches for argument in launch[2] if isinstance(argument, Live)):
            if _key(array) not in self._places:
                self._places[_key(array)] = size, array
                size += -(-array.nbytes // _STEP) * _STEP
        self._numbers = np.zeros(size, np.uint8)
        self._there = gpu.empty((size,), "uint8") if size else None
        # Numbers of the host are copied before, not while the stream is captured.
        self._held = [(*launch[:2], tuple(map(self._on_gpu, launch[2])), launch[3]) for launch in launches]
        # On a stream of its own: what other threads launch meanwhile shall run, and not become part of the graph.
        stream = gpu.device.create_stream()
        builder = stream.create_graph_builder().begin_building()
        try:
            for kernel, grid, arguments, dtype in self._held:
                gpu.launch_on(stream.handle, kernel, grid, arguments, dtype)
        finally:
            builder.end_building()
        self._graph = builder.complete()

    def _on_gpu(self, argument: Any) -> Any:
        """Return what stands for an argument of the host."""
        if not isinstance(argument, Live) or self._there is None:
            return self._gpu.held(argument)
        return self._place(argument, self._there)

    def _place(self, array: np.ndarray, there: DeviceArray) -> DeviceArray:
        first, _ = self._places[_key(array)]
        found = contiguous_in(there.memory, array.shape, array.dtype)
        found.pointer += first
        return found

    def launch(self) -> None:
        """Repeat the launches, with the numbers of now."""
        if self._there is not None:
            for first, array in self._places.values():
                self._numbers[first : first + array.nbytes] = array.reshape(-1).view(np.uint8)
            # The driver has read them when the call returns, for they are not page-locked.
            driver, stream = self._gpu.driver, self._gpu.stream_handle()
            self._gpu.check(
                driver.cuMemcpyHtoDAsync(self._there.pointer, self._numbers.ctypes.data, self._numbers.nbytes, stream)
            )
        self._graph.launch(self._gpu.stream)


def _key(array: np.ndarray) -> tuple[int, int]:
    """Return what views of the same numbers have in common."""
    return array.__array_interface__["data"][0], array.nbytes
