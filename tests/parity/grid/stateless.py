"""Layers without parameters: each is asked what its function is asked, but every value once, not every pair.

What is known to differ in the function is not asked again: see `known`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any

from torch import nn as tnn

from numbanet import nn
from tests.parity.grid import activation, images, losses, normalisation, pooling
from tests.parity.grid.activation import by_name, watched
from tests.parity.grid.cases import Entry
from tests.parity.grid.known import KNOWN

FUNCTIONS = {
    entry.name: entry for family in (activation, images, losses, normalisation, pooling) for entry in family.ENTRIES
}


def layer(lib: Any, name: str, taken: int) -> Any:
    """Return a function of a layer's operands, which are the first arguments, and of its options."""

    def call(*arguments: Any, **options: Any) -> Any:
        made = getattr(lib, name)(*arguments[taken:], **options)
        return [made(*arguments[:taken]), repr(made)]

    return call


def bound(when: Callable[..., bool], without: tuple[str, ...]) -> Callable[..., bool]:
    """Return a rule about the options that are left, where the others are None."""
    names = [name for name in signature(when).parameters if name not in without]
    given = {name: None for name in signature(when).parameters if name in without}

    def rule(*values: Any) -> bool:
        return when(**dict(zip(names, values)), **given)

    rule.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return rule


def of(name: str, function: str, without: tuple[str, ...] = (), taken: int = 1, suffix: str = "") -> Entry:
    """Return the entry of a layer, which takes the options of a function but a few."""
    asked = FUNCTIONS[function]
    known = [known for known in KNOWN if function in known.functions]
    options = {option: values for option, values in asked.options.items() if option not in without}
    left = dict.fromkeys(without, None)

    def possible(**choice: Any) -> bool:
        whole = {**left, **choice}
        return (asked.possible is None or asked.possible(**choice)) and not any(k.when(whole) for k in known)

    rules = {reason: bound(when, without) for reason, when in asked.refuses.items()}
    ours, theirs = layer(nn, name, taken), layer(tnn, name, taken)
    if "inplace" in options:
        ours, theirs = watched(ours), watched(theirs)
    return Entry(
        f"nn.{name}{suffix}", ours, theirs, options, asked.call or by_name,
        asked.tolerance, rules, possible, fewest=30, pairwise=False,
    )


LOSSES = {
    "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss", "MultiMarginLoss": "multi_margin_loss",
    "BCELoss": "binary_cross_entropy", "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "SmoothL1Loss": "smooth_l1_loss", "KLDivLoss": "kl_div",
}  # fmt: skip
ACTIVATIONS = {
    "ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "ELU": "elu", "GELU": "gelu", "SiLU": "silu",
    "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid", "Hardtanh": "hardtanh", "Softplus": "softplus",
    "Mish": "mish", "Sigmoid": "sigmoid", "Tanh": "tanh",
}  # fmt: skip
ENTRIES = [
    of("MaxPool2d", "max_pool2d"), of("AvgPool2d", "avg_pool2d"),
    of("AdaptiveAvgPool2d", "adaptive_avg_pool2d"), of("AdaptiveMaxPool2d", "adaptive_max_pool2d"),
    of("LocalResponseNorm", "local_response_norm"),
    *(of(name, function) for name, function in ACTIVATIONS.items()),
    of("Softmax", "softmax", ("dtype",)), of("LogSoftmax", "log_softmax", ("dtype",)),
    of("Upsample", "interpolate, size", ("antialias",), suffix=", size"),
    of("Upsample", "interpolate, scale_factor", ("antialias",), suffix=", scale_factor"),
    of("PixelShuffle", "pixel_shuffle"), of("PixelUnshuffle", "pixel_unshuffle"),
    of("ChannelShuffle", "channel_shuffle"), of("Unfold", "unfold"), of("Fold", "fold"),
    *(of(name, function, taken=2) for name, function in LOSSES.items()),
    of("MSELoss", "mse_loss", ("weight",), 2), of("L1Loss", "l1_loss", ("weight",), 2),
    of("HuberLoss", "huber_loss", ("weight",), 2),
]  # fmt: skip
