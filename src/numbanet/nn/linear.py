"""The fully connected layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import functional as F
from numbanet import memory
from numbanet.nn import init
from numbanet.nn.module import Member
from numbanet.nn.named import Activated, Activation, activated, text
from numbanet.nn.parameter import Parameter, float_dtype, placed
from numbanet.problem.base import integer
from numbanet.tensor import Tensor


class Linear(Activated):
    """Return ``input @ weight.T + bias``, as torch.nn.Linear.

    Input (..., in_features); output (..., out_features).

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a learned number to each output.
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
    dtype : dtype, optional
        float32 (default) or float64.
    generator : numpy.random.Generator, optional
        Draws the first values; the package's own if None.
    activation : str or callable, optional
        A function of the result, a layer, or a name: that of a function of `numbanet.functional` such as ``"relu"``,
        ``"softmax"`` (over the last dimension), ``"exponential"``, or ``"linear"`` for none.

    Attributes
    ----------
    weight : Parameter
        Shape (out_features, in_features).
    bias : Parameter or None
        Shape (out_features,).

    Raises
    ------
    TypeError, ValueError
        If a size is not an integer, or negative.
    """

    weight: Any = Member("_parameters")
    bias: Any = Member("_parameters")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        generator: np.random.Generator | None = None,
        *,
        activation: Activation = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.in_features = integer("in_features", in_features, 0)
        self.out_features = integer("out_features", out_features, 0)
        dtype = float_dtype(dtype, device)
        self.weight = Parameter(placed(memory.blank((self.out_features, self.in_features), dtype), device))
        self.bias = Parameter(placed(memory.blank(self.out_features, dtype), device)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Draw new weights and biases: uniform in +-1 / sqrt(in_features), as torch."""
        init.default_(self.weight, self.bias, generator)

    def forward(self, input: Tensor) -> Tensor:
        """Return the products with the rows of the weight, plus the bias."""
        return activated(self.activation, F.linear(input, self.weight, self.bias), -1)

    def extra_repr(self) -> str:
        """Return the sizes."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        name = text(self.activation)
        return sizes if name is None else f"{sizes}, activation={name}"
