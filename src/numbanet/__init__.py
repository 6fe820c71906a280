"""numbanet: convolutional networks whose every kernel is Python, compiled by Numba."""

import importlib as _importlib
import sys as _sys
from typing import TYPE_CHECKING
from typing import Any as _Any

if not getattr(_sys, "_is_gil_enabled", lambda: True)():
    # Recycled memory, reference counts and the settings of a launch rely on it.
    raise ImportError("numbanet needs Python's global interpreter lock: start python with -X gil=1, or PYTHON_GIL=1")

# First, as it notes what the files of the kernels are before any of them is imported.
from numbanet import sources as sources  # isort: skip

from numbanet import functional as functional
from numbanet import ops as ops
from numbanet import random as random
from numbanet.creation import tensor as tensor
from numbanet.dispatch import use as use
from numbanet.explain import explain as explain
from numbanet.info import info as info
from numbanet.random import manual_seed as manual_seed
from numbanet.settings import get_device as get_device
from numbanet.settings import get_precision as get_precision
from numbanet.settings import precision as precision
from numbanet.settings import set_device as set_device
from numbanet.settings import set_precision as set_precision
from numbanet.tape import enable_grad as enable_grad
from numbanet.tape import is_grad_enabled as is_grad_enabled
from numbanet.tape import no_grad as no_grad
from numbanet.tensor import Tensor as Tensor

__version__ = "0.1.0"

if TYPE_CHECKING:
    from numbanet import amp as amp
    from numbanet import data as data
    from numbanet import io as io
    from numbanet import models as models
    from numbanet import nn as nn
    from numbanet import optim as optim
    from numbanet import train as train
    from numbanet import viz as viz
    from numbanet.capturing import capture as capture
    from numbanet.cpu.parallel import get_num_threads as get_num_threads
    from numbanet.cpu.parallel import set_num_threads as set_num_threads
    from numbanet.interchange import from_dlpack as from_dlpack
    from numbanet.tuning import tune as tune

# What `import numbanet` does not wait for: it is imported when it is first used.
_LAZY_MODULES = ("amp", "data", "io", "models", "nn", "optim", "train", "viz")
_LAZY_NAMES = {
    "capture": "numbanet.capturing",
    "from_dlpack": "numbanet.interchange",
    "get_num_threads": "numbanet.cpu.parallel",
    "set_num_threads": "numbanet.cpu.parallel",
    "tune": "numbanet.tuning",
}


def __getattr__(name: str) -> _Any:
    if name in _LAZY_MODULES:
        return _importlib.import_module(f"numbanet.{name}")
    if name in _LAZY_NAMES:
        return getattr(_importlib.import_module(_LAZY_NAMES[name]), name)
    raise AttributeError(f"module 'numbanet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_MODULES, *_LAZY_NAMES})
