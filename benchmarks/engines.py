"""What else runs a trained PyTorch network on a CPU: ``torch.compile``, and ONNX Runtime behind PyTorch's exporter."""

from __future__ import annotations

import io
import shutil
from typing import Any

import numpy as np

from benchmarks import backends
from benchmarks.cases import Call

ENGINES = ("torch:compiled", "onnxruntime")


def missing(engine: str) -> str | None:
    """Return what an engine of `ENGINES` needs and this machine lacks, or None."""
    if not backends.available("torch"):
        return "PyTorch"
    if engine == "torch:compiled":
        return None if any(map(shutil.which, ("c++", "g++", "clang++"))) else "a C++ compiler"
    absent = [name for name in ("onnxruntime", "onnx", "onnxscript") if not backends.available(name)]
    return ", ".join(absent) or None


def inference(engine: str, model: Any, images: np.ndarray) -> Call:
    """Return the function that computes the scores of a batch with one of `ENGINES`.

    Parameters
    ----------
    engine : str
    model : torch.nn.Module
        In evaluation mode.
    images : numpy.ndarray
        The batch; the exported network is for its shape.
    """
    return _compiled(model, images) if engine == "torch:compiled" else _onnxruntime(model, images)


def _compiled(model: Any, images: np.ndarray) -> Call:
    import torch

    # Frozen: weights become constants, are packed for their layers once, and batch norm is folded into them.
    fast = torch.compile(model.to(memory_format=torch.channels_last), options={"freezing": True})
    x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)

    def infer() -> Any:
        with torch.no_grad():
            return fast(x)

    return infer


def _onnxruntime(model: Any, images: np.ndarray) -> Call:
    import onnxruntime
    import torch

    buffer = io.BytesIO()
    program = torch.onnx.export(model, (torch.from_numpy(images),), dynamo=True, verbose=False)
    program.save(buffer)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, feed)[0]
