"""What is no Tensor is refused by name, by every function."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F

ONE = nnet.tensor([[1.0, 2.0], [3.0, 4.0]])
# What each function needs beside its input.
ARGUMENTS = {
    "adaptive_avg_pool2d": (1,), "adaptive_max_pool2d": (1,),
    "channel_shuffle": (1,), "chunk": (1,), "conv1d": (ONE,), "conv_transpose2d": (ONE,),
    "group_norm": (1,), "interpolate": (2,), "layer_norm": ((2,),), "local_response_norm": (3,),
    "pixel_shuffle": (1,), "pixel_unshuffle": (1,), "split": (1,),
    "avg_pool2d": (1,), "batch_norm": (None, None, None, None, True), "conv2d": (ONE,),
    "l1_loss": (ONE,), "smooth_l1_loss": (ONE,), "huber_loss": (ONE,), "binary_cross_entropy": (ONE,),
    "binary_cross_entropy_with_logits": (ONE,), "kl_div": (ONE, None, None, "sum"), "multi_margin_loss": (ONE,),
    "cross_entropy": (ONE,), "expand": ((2, 2),), "flatten": (), "getitem": (0,), "linear": (ONE,), "matmul": (ONE,),
    "max_pool2d": (1,), "mse_loss": (ONE,), "nll_loss": (ONE,), "pad": ((1, 1),), "permute": ((1, 0),),
    "prelu": (ONE,), "unfold": (1,), "fold": (1, 1),
    "reshape": ((4,),),
    "softmax": (0,), "log_softmax": (0,), "to_dtype": (np.float64,), "transpose": (0, 1), "unflatten": (0, (2, 1)),
    "to_device": ("cpu",),
    "unsqueeze": (0,),
}  # fmt: skip
# These take numbers and arrays too, or a sequence of tensors.
MIXED = {"add", "bitwise_and", "bitwise_or", "bitwise_xor",
         "sub", "mul", "div", "pow", "maximum", "minimum", "where", "eq", "ne", "lt", "le", "gt", "ge", "cat",
         "stack"}  # fmt: skip
FUNCTIONS = [name for name, f in vars(F).items() if inspect.isfunction(f) and name not in MIXED]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("operand", [np.ones((2, 2)), [1.0, 2.0], 3.0, None], ids=["array", "list", "number", "None"])
def test_not_a_tensor(name, operand):
    with pytest.raises(TypeError, match=r"(input|operand) must be a Tensor, got (ndarray|list|float|None)"):
        getattr(F, name)(operand, *ARGUMENTS.get(name, ()))


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if "inplace" in inspect.signature(getattr(F, n)).parameters])
def test_nothing_to_replace(name):
    for operand in (None, 1.5, [1.0, 2.0]):
        with pytest.raises(TypeError, match="input must be a Tensor"):
            getattr(F, name)(operand, inplace=True)
