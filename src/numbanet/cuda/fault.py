"""What kernels find wrong with the numbers that they are given, and Python learns when it next waits for the GPU.

They write to the three numbers of `Executor.fault`: what it was (`INDEX` or `LABEL`, 0 for nothing), the number itself,
and the size that it is beyond.
"""

from __future__ import annotations

from numbanet.cuda.compile import device
from numbanet.cuda.launch import INDEX, LABEL
from numbanet.cuda.ptx import types

i64 = types.int64


@device
def report_index(fault, index, size):
    """Report an index that is out of bounds for an axis."""
    fault[0], fault[1], fault[2] = i64(INDEX), i64(index), i64(size)


@device
def report_label(fault, label, classes):
    """Report a label that is no class."""
    fault[0], fault[1], fault[2] = i64(LABEL), i64(label), i64(classes)
