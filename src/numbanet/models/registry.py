"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints

from numbanet import nn
from numbanet.models import resnet, vgg
from numbanet.models.alexnet import alexnet
from numbanet.models.all_cnn import all_cnn
from numbanet.models.builder import convnet
from numbanet.models.convnetjs import convnetjs
from numbanet.models.densenet import densenet121
from numbanet.models.digits import digits
from numbanet.models.googlenet import googlenet
from numbanet.models.lenet import lenet5
from numbanet.models.mobilenet import mobilenet_v2
from numbanet.models.resnet_cifar import ResNetCifar, resnet20, resnet56
from numbanet.models.shufflenet import shufflenet_v2_x1_0
from numbanet.models.squeezenet import squeezenet1_0, squeezenet1_1
from numbanet.models.zfnet import zfnet
from numbanet.problem.base import choice

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "all_cnn": all_cnn,
    "convnet": convnet,
    "convnetjs": convnetjs,
    "densenet121": densenet121,
    "digits": digits,
    "googlenet": googlenet,
    "lenet5": lenet5,
    "mobilenet_v2": mobilenet_v2,
    "resnet20": resnet20,
    "resnet56": resnet56,
    **{f"resnet{depth}": partial(ResNetCifar, depth) for depth in (32, 44, 110)},
    **{f"resnet{depth}": getattr(resnet, f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": partial(resnet.resnet50, groups=32, width_per_group=4),
    "shufflenet_v2_x1_0": shufflenet_v2_x1_0,
    "squeezenet1_0": squeezenet1_0,
    "squeezenet1_1": squeezenet1_1,
    "zfnet": zfnet,
    **{f"vgg{depth}": getattr(vgg, f"vgg{depth}") for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}_bn": partial(getattr(vgg, f"vgg{depth}"), batch_norm=True) for depth in (11, 13, 16, 19)},
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
    known = _options(build)
    unknown = [option for option in options if option not in known]
    if not {"pretrained", "weights"}.isdisjoint(unknown):
        raise TypeError(
            f"{name} has no option {', '.join(unknown)}: numbanet brings no weights. "
            "numbanet.io.load_model(model, 'x.safetensors') loads those of a file, also torchvision's"
        )
    if unknown:
        raise TypeError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    shape = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    return build(**{key: value for key, value in shape.items() if value is not None and key in known}, **options)


# Arguments of classes that a name such as resnet18 or vgg16 stands for.
_FIXED = ("self", "block", "layers", "depth", "version")


def _options(build: Callable[..., nn.Module]) -> list[str]:
    """Return the names of a builder's arguments, with those of its class that it hands on as ``**options``.

    What a `functools.partial` binds is no option.
    """
    bound = build.keywords if isinstance(build, partial) else {}
    parameters = inspect.signature(build).parameters.values()
    found = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    if len(found) < len(parameters):
        made = get_type_hints(build.func if isinstance(build, partial) else build)["return"]
        found += [name for name in inspect.signature(made).parameters if name not in (*found, *_FIXED)]
    return [name for name in found if name not in bound]
