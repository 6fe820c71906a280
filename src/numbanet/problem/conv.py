"""Two-dimensional convolution: its shape arithmetic and argument checks, for every pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from numbanet.problem.base import Problem, choice, integer, optional_choice, pair, plain, sizes

PASSES = ("forward", "backward_input", "backward_weight")
ACTIVATIONS = ("relu", "relu6")


@dataclass(frozen=True)
class Epilogue:
    """What happens to a result before it is stored, in this order.

    Attributes
    ----------
    bias : bool
        Add a number a channel.
    residual : bool
        Add an array of the result's shape and memory order. In backward_input it may be the result itself.
    activation : {None, "relu", "relu6"}
        Then max(y, 0), or min(max(y, 0), 6); NaN stays NaN.
    """

    bias: bool = False
    residual: bool = False
    activation: str | None = None


@lru_cache(maxsize=16)
def _epilogue(bias: bool, residual: bool, activation: str | None) -> Epilogue:
    return Epilogue(bias, residual, activation)


def epilogue(bias: bool = False, residual: bool = False, activation: str | None = None) -> Epilogue:
    """Check the activation's name and return the epilogue.

    Raises
    ------
    ValueError
        If `activation` is neither None nor one of `ACTIVATIONS`.
    """
    return _epilogue(bias, residual, optional_choice("activation", activation, ACTIVATIONS))


@dataclass(frozen=True)
class ConvProblem(Problem):
    """Convolution (cross-correlation) of x (N, C, H, W) with weight (K, C/groups, R, S), giving y (N, K, P, Q).

    ``y[n,k,p,q] = sum over c,r,s of x[n, c, p*stride_h + r*dilation_h - pad_top, q*stride_w + ...] * weight[k,c,r,s]``,
    with x zero outside its borders. Arrays come to the kernels in their memory order: x as (N, H, W, C), y as
    (N, P, Q, K), weight as (K, R, S, C/groups), all C-contiguous.
    """

    operation: ClassVar[str] = "conv2d"
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    """Top, bottom, left, right."""
    dilation: tuple[int, int]
    groups: int
    epilogue: Epilogue = Epilogue()
    prepared: bool = False
    """Whether the weight serves many calls: kernels then take a form of it that was made once."""

    @property
    def p(self) -> int:
        """Output height: floor((H + top + bottom - dilation * (R - 1) - 1) / stride) + 1."""
        return (self.h + self.pads[0] + self.pads[1] - self.dilation[0] * (self.r - 1) - 1) // self.stride[0] + 1

    @property
    def q(self) -> int:
        """Output width, likewise."""
        return (self.w + self.pads[2] + self.pads[3] - self.dilation[1] * (self.s - 1) - 1) // self.stride[1] + 1

    @property
    def cg(self) -> int:
        """In-channels of one group."""
        return self.c // self.groups

    @property
    def kg(self) -> int:
        """Out-channels of one group."""
        return self.k // self.groups

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct method."""
        return 2 * self.n * self.p * self.q * self.k * self.r * self.s * self.cg

    @property
    def reduction(self) -> int:
        """Number of products that one output element sums."""
        if self.which == "forward":
            return self.r * self.s * self.cg
        return self.r * self.s * self.kg if self.which == "backward_input" else self.n * self.p * self.q


def _same_lower(size: int, effective: int, stride: int) -> tuple[int, int]:
    # torch pads with the smaller half before and the larger after; its size must not change.
    total = effective - 1
    return total // 2, total - total // 2


def _same_upper(size: int, effective: int, stride: int) -> tuple[int, int]:
    # ONNX's SAME_UPPER, as Keras: the output has ceil(size / stride) positions.
    total = max((-(-size // stride) - 1) * stride + effective - size, 0)
    return total // 2, total - total // 2


def resolve_padding(
    padding: Any, size: tuple[int, int], effective: tuple[int, int], stride: tuple[int, int], least: int | None = 0
) -> tuple[int, int, int, int]:
    """Return the pads (top, bottom, left, right).

    Parameters
    ----------
    padding : int, (int, int), ((int, int), (int, int)) or str
        One number, (height, width), ((top, bottom), (left, right)), or ``"valid"``, ``"same"`` (as torch: stride 1
        only) or ``"same_upper"`` (as Keras and ONNX: any stride).
    size : (int, int)
        Height and width of the input.
    effective : (int, int)
        Height and width that the dilated filter spans.
    stride : (int, int)
    least : int, optional
        The smallest number that `padding` may hold; None: any, as negative ones take pixels away.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, below `least`, or ``"same"`` with a stride above 1.
    """
    if isinstance(padding, str):
        choice("padding", padding, ("valid", "same", "same_upper"))
        if padding == "valid":
            return 0, 0, 0, 0
        if padding == "same" and stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1, got stride {stride}; 'same_upper' takes any stride")
        rule = _same_lower if padding == "same" else _same_upper
        top, bottom = rule(size[0], effective[0], stride[0])
        left, right = rule(size[1], effective[1], stride[1])
        return top, bottom, left, right
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and isinstance(padding[0], (tuple, list)):
        top, bottom = pair("padding", padding[0], least)
        left, right = pair("padding", padding[1], least)
        return top, bottom, left, right
    vertical, horizontal = pair("padding", padding, least)
    return vertical, vertical, horizontal, horizontal


def conv2d_problem(
    which: str,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    dtype: str,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    epilogue: Epilogue = Epilogue(),
    prepared: bool = False,
) -> ConvProblem:
    """Check the arguments of a convolution and return its problem.

    Parameters
    ----------
    which : {"forward", "backward_input", "backward_weight"}
    x_shape : (N, C, H, W)
    weight_shape : (K, C/groups, R, S)
    dtype : {"float32", "float64"}
    stride, dilation : int or (int, int)
    padding : see `resolve_padding`
    groups : int
    epilogue : Epilogue
    prepared : bool
        Whether the weight is a `numbanet.prepared.PreparedWeight`.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense; the message names it, its value and what was expected.
    """
    return _conv2d_problem(
        which, sizes("input", x_shape), sizes("weight", weight_shape), dtype,
        *plain_options(stride, padding, dilation, groups), epilogue, prepared,
    )  # fmt: skip


def plain_options(stride: Any, padding: Any, dilation: Any, groups: Any) -> tuple[Any, Any, Any, Any]:
    """Return the options of a convolution in the one form that stands for their meaning; see `plain`."""
    options = (stride, padding, dilation, groups)
    for value in options:
        kind = type(value)
        if kind is not int and not (kind is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int):
            words = ("stride", "padding", "dilation", "groups")
            return tuple(map(plain, words, options))  # type: ignore[return-value]
    return options


def _channels_last_hint(x_shape: tuple[int, ...], channels: int) -> str:
    """Return what to do with images whose channels come last, if a shape looks like that of such ones."""
    if x_shape[2] in (1, x_shape[3]) or x_shape[3] != channels:
        return ""
    return ": images with channels last need permute(0, 3, 1, 2), or a layer with data_format='channels_last'"


@lru_cache(maxsize=4096, typed=True)
def _conv2d_problem(
    which: str, x_shape: tuple, weight_shape: tuple, dtype: str, stride: Any, padding: Any, dilation: Any, groups: int,
    epilogue: Epilogue, prepared: bool,
) -> ConvProblem:  # fmt: skip
    choice("which", which, PASSES)
    if len(weight_shape) != 4:
        raise ValueError(f"weight must have shape (K, C/groups, R, S), got {weight_shape}")
    if len(x_shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W) or (C, H, W), got {x_shape}")
    (n, c, h, w), (k, cg, r, s) = x_shape, weight_shape
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    groups = integer("groups", groups, 1)
    if min(r, s) < 1:
        raise ValueError(f"weight must have a filter of at least 1 x 1, got shape {weight_shape}")
    if k < groups:
        raise ValueError(f"weight must have at least one out-channel for each of {groups} groups, got {weight_shape}")
    if c != cg * groups:
        raise ValueError(
            f"input must have {cg * groups} channels for weight of shape {weight_shape} and groups={groups}, "
            f"got input of shape {x_shape}{_channels_last_hint(x_shape, cg * groups)}"
        )
    if k % groups:
        raise ValueError(f"groups must divide the {k} out-channels of weight, got groups={groups}")
    effective = dilation[0] * (r - 1) + 1, dilation[1] * (s - 1) + 1
    pads = resolve_padding(padding, (h, w), effective, stride)
    # A step beyond the image is as good as one over all of it, and positions times steps stay small.
    stride = min(stride[0], max(h + pads[0] + pads[1], 1)), min(stride[1], max(w + pads[2] + pads[3], 1))
    problem = ConvProblem(which, dtype, n, c, h, w, k, r, s, stride, pads, dilation, groups, epilogue, prepared)
    if problem.p < 1 or problem.q < 1:
        raise ValueError(
            f"weight spans {effective[0]} x {effective[1]} pixels, more than the padded input of "
            f"{h + pads[0] + pads[1]} x {w + pads[2] + pads[3]}"
        )
    return problem
