"""Where numbanet and PyTorch differ, and why; a test fails where one of these no longer does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as TF

from tests.parity.grid import instead
from tests.parity.grid.cases import Case
from tests.parity.grid.compare import deliberate, unlike
from tests.parity.grid.running import run
from tests.parity.grid.values import OMIT, T

Choice = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """A difference, with both outcomes.

    Attributes
    ----------
    functions : tuple of str
    when : function
        Of a choice: whether the libraries may differ there.
    torch : {"answers", "refuses"}
    ours : tuple of types, or function
        The errors of which numbanet raises one; or a function of PyTorch's tensors, in `instead`, whose results and
        gradients numbanet's must equal as they must else equal those of PyTorch's own function.
    reason : str
    varies : bool
        Whether the number of cases depends on the CPU, by the vectors of PyTorch's kernels.
    """

    functions: tuple[str, ...]
    when: Callable[[Choice], bool]
    torch: str
    ours: tuple[type[Exception], ...] | Callable
    reason: str
    varies: bool = False

    def explains(self, case: Case) -> bool:
        """Whether a case may differ for this reason, and the outcomes are those that are said here."""
        if case.entry.name not in self.functions or not self.when(case.plain):
            return False
        if (self.torch == "refuses") != (case.theirs.error is not None):
            return False
        if isinstance(self.ours, tuple):
            return isinstance(case.ours.error, self.ours) and deliberate(case.ours.error)
        expected = run(torch, self.ours, case.call, case.choice["gradients"])
        return expected.error is None and not unlike(case.ours, expected, case.entry.tolerance)


def empty(choice: Choice) -> bool:
    """Whether the input has no elements."""
    shapes = [choice.get("shape"), *(v.shape for v in choice.values() if isinstance(v, T))]
    return choice.get("images") == "empty" or any(shape and 0 in shape for shape in shapes)


def wild(choice: Choice) -> bool:
    """Whether there are infinities and NaN."""
    return isinstance(choice["input"], T) and choice["input"].kind == "wild"


KNOWN: tuple[Known, ...] = (
    Known(
        (
            "conv_transpose2d", "batch_norm", "local_response_norm", "nn.ConvTranspose2d",
            "nn.InstanceNorm1d", "nn.InstanceNorm2d",
        ),
        empty, "answers", (ValueError, TypeError),
        "PyTorch checks little where there is nothing to compute (dtypes, dilation, output_padding, sizes); numbanet "
        "checks as always",
    ),
    Known(
        ("softmax", "log_softmax"), empty, "answers", (TypeError,),
        "PyTorch does not look at dtypes where there is nothing to compute; numbanet checks as always",
    ),
    *(
        Known(
            (name,), empty, torch_does, function,
            "PyTorch fails on its way through an empty batch, or makes NaN of running statistics; numbanet gives the "
            "empty result and its gradient",
        )
        for name, function in (
            ("instance_norm", instead.instance_norm),
            ("nn.InstanceNorm1d", instead.instance_layer("InstanceNorm1d")),
            ("nn.InstanceNorm2d", instead.instance_layer("InstanceNorm2d")),
        )
        for torch_does in ("refuses", "answers")
    ),
    Known(
        ("pixel_unshuffle",), empty, "answers", instead.pixel_unshuffle,
        "PyTorch leaves a batch without elements as it is, in its old shape; numbanet gives it the new one",
    ),
    *(
        Known(
            (name,), wild, "answers", instead.changed(instead.with_limits(function)),
            "at infinities the gradient is the limit, and gelu of infinity is infinity; PyTorch has NaN (infinity "
            "times zero)",
            varies=True,
        )
        for name, function in (
            ("gelu", TF.gelu), ("silu", TF.silu), ("mish", TF.mish),
        )
    ),
    *(
        Known(
            (name,), wild, "answers", instead.changed(instead.passing_nan(function)),
            "where the input is NaN, numbanet lets the gradient pass, as relu does; PyTorch does so at some places "
            "only",
        )
        for name, function in (("relu6", TF.relu6), ("hardtanh", TF.hardtanh))
    ),
    Known(
        ("hardsigmoid",), lambda c: isinstance(c["input"], T) and c["input"].dtype == "float64", "answers",
        instead.changed(instead.hardsigmoid),
        "PyTorch's gradient takes 1/6 in float32 for float64 too",
    ),
    Known(
        ("kl_div",), lambda c: c["kinds"] == ("logs", "few") and c["log_target"] is not True, "answers",
        instead.kl_div,
        "where the target is 0, PyTorch's gradient of the target is NaN (0/0), and numbanet's -input",
    ),
    *(
        Known(
            (name,), lambda c: c["dim"] == (), "answers", instead.over_all(function),
            "with dim=() PyTorch's gradient divides by 1 - correction, not by the number of elements",
        )
        for name, function in (("var", torch.var), ("std", torch.std), ("Tensor.var", torch.var))
    ),
    Known(
        ("Tensor.var",), lambda c: c["dim"] == () and c["correction"] == 30, "answers",
        instead.over_all(instead.variance_of_too_few),
        "with dim=() and a correction above the number of elements the gradient divides by a negative number, and "
        "PyTorch's by 1 - correction",
    ),
    *(
        Known(
            (loss.__name__,), lambda c: "wild" in c["kinds"], "answers", instead.no_number(loss),
            "where an operand is NaN the gradient is NaN, and 0 in PyTorch",
        )
        for loss in (TF.l1_loss, TF.smooth_l1_loss)
    ),
    Known(
        ("binary_cross_entropy_with_logits",), lambda c: "wild" in c["kinds"], "answers",
        instead.binary_cross_entropy_with_logits,
        "the loss of an infinite score is infinite, and NaN in PyTorch",
    ),
    Known(
        ("interpolate, size",), lambda c: c["size"] == 0, "answers", (ValueError,),
        "areas of an image without pixels are answered by PyTorch where no gradient is recorded",
    ),
    Known(
        ("cat",), lambda c: c["first"].shape == (0,) and c["dim"] not in (OMIT, 0, -1), "answers",
        (ValueError, IndexError),
        "PyTorch does not look at dim where all tensors have the shape (0,)",
    ),
    Known(
        ("Tensor: indexing",), lambda c: (c["first"], c["second"]) == (..., ...), "answers", (IndexError,),
        "an index with two ellipses is refused, as by NumPy: PyTorch takes the dimensions after the second one wrongly",
    ),
)  # fmt: skip
