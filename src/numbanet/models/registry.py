"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from numbanet import nn
from numbanet.models.builder import convnet
from numbanet.models.convnetjs import convnetjs
from numbanet.models.digits import digits
from numbanet.models.lenet import lenet5
from numbanet.models.resnet_cifar import ResNetCifar, resnet20
from numbanet.problem.base import choice

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet": convnet,
    "convnetjs": convnetjs,
    "digits": digits,
    "lenet5": lenet5,
    "resnet20": resnet20,
    **{f"resnet{depth}": partial(ResNetCifar, depth) for depth in (32, 44, 56, 110)},
}


def names() -> tuple[str, ...]:
    """Return the names that `get` knows."""
    return tuple(sorted(_MODELS))


def get(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model by its name.

    Parameters
    ----------
    name : str
        One of `names`.
    num_classes, in_channels : int, optional
        The model's own default if None.
    image_size : int or (int, int), optional
        Height and width of the images; the model's own default if None. Models for images of any size ignore it.
    **options
        Further keyword arguments of the model, such as ``generator``.

    Returns
    -------
    Module
        From images (N, in_channels, height, width) to scores (N, num_classes).

    Raises
    ------
    ValueError
        If no model has that name, or the model refuses a value.
    TypeError
        If the model has no such option; the message lists those it has.
    """
    build = _MODELS[choice("name", name, names())]
    known = list(inspect.signature(build).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    given = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, **options}
    return build(**{key: value for key, value in given.items() if value is not None and key in known})
