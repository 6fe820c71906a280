"""Where numbanet and PyTorch differ, and why; a test fails where one of these no longer does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.parity.grid.cases import Case
from tests.parity.grid.values import OMIT, T

Choice = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """A difference: the functions and choices that it is about, and its reason."""

    functions: tuple[str, ...]
    when: Callable[[Choice], bool]
    reason: str

    def explains(self, case: Case) -> bool:
        """Whether a case may differ for this reason."""
        return case.entry.name in self.functions and self.when(case.plain)


def empty(choice: Choice) -> bool:
    """Whether the input has no elements."""
    shapes = [choice.get("shape"), *(v.shape for v in choice.values() if isinstance(v, T))]
    return choice.get("images") == "empty" or any(shape and 0 in shape for shape in shapes)


def wild(choice: Choice) -> bool:
    """Whether there are infinities and NaN."""
    return choice["input"].kind == "wild"


KNOWN: tuple[Known, ...] = (
    Known(
        (
            "conv1d", "conv_transpose2d", "batch_norm", "local_response_norm", "multi_margin_loss",
            "nn.ConvTranspose2d",
        ),
        empty,
        "PyTorch checks little where there is nothing to compute (dtypes, dilation, output_padding, sizes); numbanet "
        "checks as always",
    ),
    Known(
        ("instance_norm", "nn.InstanceNorm1d", "nn.InstanceNorm2d", "pixel_unshuffle"), empty,
        "PyTorch fails on its way through an empty batch, or makes NaN of running statistics; numbanet gives the empty "
        "result and its gradient",
    ),
    Known(
        ("gelu", "silu", "mish"), wild,
        "at infinities numbanet gives the limits, PyTorch NaN (infinity times zero), not everywhere",
    ),
    Known(
        ("relu6", "hardtanh"), wild,
        "where the input is NaN, numbanet lets the gradient pass, as relu does; PyTorch does so at some places only",
    ),
    Known(
        ("hardsigmoid",), lambda c: c["input"].dtype == "float64",
        "PyTorch's gradient takes 1/6 in float32 for float64 too",
    ),
    Known(
        ("kl_div",), lambda c: c["kinds"] == ("logs", "few") and c["log_target"] is not True,
        "where the target is 0, PyTorch's gradient of the target is NaN (0/0), and numbanet's -input",
    ),
    Known(
        ("var", "std", "Tensor.var"), lambda c: c["dim"] == (),
        "with dim=() PyTorch's gradient divides by 1 - correction, not by the number of elements",
    ),
    Known(
        ("l1_loss", "smooth_l1_loss"), lambda c: "wild" in c["kinds"],
        "where an operand is NaN the gradient is NaN, and 0 in PyTorch",
    ),
    Known(
        ("binary_cross_entropy_with_logits",), lambda c: "wild" in c["kinds"],
        "the loss of an infinite score is infinite; PyTorch has NaN for some of them",
    ),
    Known(
        ("cat",), lambda c: c["first"].shape == (0,) and c["dim"] not in (OMIT, 0, -1),
        "PyTorch does not look at dim where all tensors have the shape (0,)",
    ),
    Known(
        ("Tensor: indexing",), lambda c: (c["first"], c["second"]) == (..., ...),
        "an index with two ellipses is refused, as by NumPy: PyTorch takes the dimensions after the second one wrongly",
    ),
)  # fmt: skip
