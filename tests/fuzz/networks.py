"""The table of numbanet.models: a network is built and its parameters are counted; small ones are run as well.

What is only counted is built without first values, which takes milliseconds for any of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import numbanet as nnet
from numbanet import Tensor, models, nn
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line

# As published: parameters, those of each class and those of each channel of the images; the number of classes.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "alexnet": (61_100_840, 4097, 64 * 121, 1000), "zfnet": (62_357_608, 4097, 96 * 49, 1000),
    "vgg11": (132_863_336, 4097, 576, 1000), "vgg11_bn": (132_868_840, 4097, 576, 1000),
    "vgg13": (133_047_848, 4097, 576, 1000), "vgg13_bn": (133_053_736, 4097, 576, 1000),
    "vgg16": (138_357_544, 4097, 576, 1000), "vgg16_bn": (138_365_992, 4097, 576, 1000),
    "vgg19": (143_667_240, 4097, 576, 1000), "vgg19_bn": (143_678_248, 4097, 576, 1000),
    "resnet18": (11_689_512, 513, 64 * 49, 1000), "resnet34": (21_797_672, 513, 64 * 49, 1000),
    "resnet50": (25_557_032, 2049, 64 * 49, 1000), "resnet101": (44_549_160, 2049, 64 * 49, 1000),
    "resnet152": (60_192_808, 2049, 64 * 49, 1000), "resnext50_32x4d": (25_028_904, 2049, 64 * 49, 1000),
    "densenet121": (7_978_856, 1025, 64 * 49, 1000), "googlenet": (13_004_888, 3 * 1025, 64 * 49, 1000),
    "mobilenet_v2": (3_504_872, 1281, 32 * 9, 1000), "shufflenet_v2_x1_0": (2_278_604, 1025, 24 * 9, 1000),
    "squeezenet1_0": (1_248_424, 513, 96 * 49, 1000), "squeezenet1_1": (1_235_496, 513, 64 * 9, 1000),
    "resnet20": (269_722, 65, 144, 10), "resnet56": (853_018, 65, 144, 10), "all_cnn": (1_369_738, 193, 96 * 9, 10),
    "fcn_resnet50": (35_322_218 - 2_365_205, 513, 64 * 49, 21),
}  # fmt: skip
_WORDS = (
    "num_classes", "in_channels", "image_size", "dropout", "generator", "channels", "hidden", "convs", "kernel_size",
    "depth", "shortcut", "growth_rate", "block_config", "num_init_features", "bn_size", "drop_rate", "groups", "sizes",
    "dropout_aux", "transform_input",
    "width_per_group", "replace_stride_with_dilation", "zero_init_residual", "aux_logits", "aux_loss", "width_mult",
    "version", "width", "padding", "name", "start_dim", "layers", "block", "batch_norm", "options",
)  # fmt: skip
_MORE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("alexnet", "zfnet", "squeezenet1_0", "vgg11", "vgg16_bn"), {"dropout": 0.25}),
    **dict.fromkeys(("resnet18", "resnet50"), {"zero_init_residual": True}),
    "googlenet": {"dropout": 1, "dropout_aux": 0.0, "aux_logits": True, "transform_input": True},
    "mobilenet_v2": {"dropout": 0.5, "width_mult": 1.0}, "fcn_resnet50": {"aux_loss": False},
    "densenet121": {"drop_rate": 0.5},
}  # fmt: skip
_MANY = 1000  # layers: a network of more takes all the memory, a layer at a time


def _modest(value: Any) -> Any:
    """Return a number of layers, or raise the MemoryError that a huge one would end with."""
    for item in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(item, (int, float)) and item > _MANY:
            raise MemoryError(f"{item} layers")
    return value


def _built(build: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    for name in ("depth", "layers", "block_config", "convs"):
        _modest(kwargs.get(name))
    if "generator" in kwargs:  # which the definition draws from as well
        kwargs["generator"] = copy.deepcopy(kwargs["generator"])
    return build(*args, **kwargs)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _counted(build: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that builds a network of no values, and counts its parameters."""

    def call(*args: Any, **kwargs: Any) -> int:
        with nn.init.skipped():
            return _size(_built(build, *args, **kwargs))

    call.about = build  # type: ignore[attr-defined]
    return call


def _run(build: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that builds a network, and runs images through it, in their dtype."""

    def call(images: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(images, Tensor):
            raise TypeError("images must be a Tensor")
        nnet.manual_seed(1)
        network = _built(build, *args, **kwargs).eval()
        if images.dtype == np.float64:
            network.double()
        with nnet.no_grad():
            return [_size(network), network(images)]

    call.about = build  # type: ignore[attr-defined]
    return call


# ------------------------------------------------------------------------------------------------ draws


def _options(d: Draw) -> dict[str, Any]:
    options = {"num_classes": d.integer(1, 12), "in_channels": d.integer(1, 4), "generator": np.random.default_rng(3)}
    return {name: value for name, value in options.items() if d.chance(0.7)}


def _of_name(name: str) -> Callable[[Draw], Call]:
    def draw(d: Draw) -> Call:
        more = {option: value for option, value in _MORE.get(name, {}).items() if d.chance(0.5)}
        return (), {**_options(d), **more}

    return draw


def _published(name: str) -> Callable[..., int]:
    """Return the function of the number of parameters."""
    count, of_class, of_channel, classes = SIZES[name]
    defaults = {"num_classes": classes, "in_channels": 3}

    def size(**o: Any) -> int:
        number, channels = (default if o.get(key) is None else o[key] for key, default in defaults.items())
        more = (number - classes) * of_class + (channels - 3) * of_channel
        if name == "googlenet" and not o.get("aux_logits", True):
            more -= 6_379_984 + 2050 * (number - 1000)
        if name == "fcn_resnet50" and o.get("aux_loss"):
            more += 2_365_205 + 257 * (number - 21)
        return count + more

    return size


def _images(d: Draw, least: int, most: int, channels: int) -> np.ndarray:
    return d.floats((d.integer(0, 2), channels, d.integer(least, most), d.integer(least, most)))


def _plain(least: int, most: int) -> Callable[[Draw], Call]:
    """Return a draw of images and options of a network for images of any size."""

    def draw(d: Draw) -> Call:
        options = {**_options(d), "in_channels": d.integer(1, 4)}
        return (_images(d, least, most, options["in_channels"]),), options

    return draw


def _sized(least: int, most: int) -> Callable[[Draw], Call]:
    """Return a draw of images and options of a network for images of one size."""

    def draw(d: Draw) -> Call:
        (images,), options = _plain(least, most)(d)
        return (images,), {**options, "num_classes": d.integer(1, 12), "image_size": images.shape[2:]}

    return draw


def _convnet(d: Draw) -> Call:
    (images,), options = _sized(4, 9)(d)
    return (images,), {
        **options, "channels": [d.integer(1, 6) for _ in range(d.integer(0, 2))], "convs": d.integer(0, 2),
        "kernel_size": d.pick(1, 3, 5), "pool": d.chance(0.7),
        "hidden": [d.integer(1, 9) for _ in range(d.integer(0, 2))], "batch_norm": d.chance(0.5),
        "dropout": d.pick(0.0, 0.5), "softmax": d.chance(0.3),
    }  # fmt: skip


def _residual(d: Draw) -> Call:
    (images,), options = _plain(1, 9)(d)
    return (images,), {**options, "num_classes": d.integer(1, 12), "depth": d.pick(8, 14), "shortcut": d.pick("A", "B")}


def _dense(d: Draw) -> Call:
    options = {
        "growth_rate": d.integer(1, 9), "block_config": [d.integer(1, 3) for _ in range(d.integer(1, 3))],
        "num_init_features": d.integer(4, 9), "bn_size": d.integer(1, 4), "drop_rate": d.pick(0.0, 0.2),
        "num_classes": d.integer(1, 9),
    }  # fmt: skip
    return (_images(d, 29, 33, 3),), options


def _stages(d: Draw) -> Call:
    bottleneck = d.chance(0.5)
    block = models.resnet.Bottleneck if bottleneck else models.resnet.BasicBlock
    options = {
        "block": block, "layers": [d.integer(1, 3) for _ in range(4)], "num_classes": d.integer(1, 9),
        "in_channels": d.integer(1, 4), "zero_init_residual": d.chance(0.3),
    }  # fmt: skip
    if bottleneck:
        options |= {"groups": d.pick(1, 2), "width_per_group": d.pick(64, 32)}
        options |= {"replace_stride_with_dilation": d.pick((False, True, True), [False] * 3)}
    return (), options


def _codes(d: Draw) -> Call:
    sizes = [12, *(d.integer(1, 9) for _ in range(d.integer(1, 3)))]
    return (d.floats((d.integer(0, 3), *d.pick((12,), (3, 2, 2)))), d.pick(tuple, list)(sizes)), {}


def _segments(d: Draw) -> Call:
    options = {"num_classes": d.integer(1, 4), "in_channels": d.integer(1, 3), "width": d.integer(1, 4), "padding": 1}
    return (d.floats((d.integer(0, 2), options["in_channels"], 16, d.pick(16, 32))),), options


# ------------------------------------------------------------------------------------------------ parameters, by hand


def _conv(c: int, k: int, size: int, bias: bool = True) -> int:
    return k * (c * size * size + bias)


def _pattern(channels: Any = (), convs: int = 1, kernel: int = 3, hidden: Any = (), norm: bool = False) -> Any:
    def size(images: Any, **o: Any) -> int:
        widths, count = o.get("channels", channels), 0
        c, each = o["in_channels"], o.get("convs", convs)
        for k in widths:
            for _ in range(each):
                normed = bool(o.get("batch_norm", norm))
                count += _conv(c, k, o.get("kernel_size", kernel), not normed) + 2 * k * normed
                c = k
        h, w = (n >> len(widths) * bool(o.get("pool", True)) for n in o["image_size"])
        sizes = [c * h * w, *o.get("hidden", hidden), o["num_classes"]]
        return count + sum(a * b + b for a, b in zip(sizes, sizes[1:]))

    return size


def _lenet(images: Any, num_classes: int, in_channels: int, image_size: Any, generator: Any = None) -> int:
    h, w = ((n // 2 - 4) // 2 for n in image_size)
    sizes = [16 * h * w, 120, 84, num_classes]
    return _conv(in_channels, 6, 5) + _conv(6, 16, 5) + sum(a * b + b for a, b in zip(sizes, sizes[1:]))


def _cifar(images: Any, depth: int, shortcut: str, num_classes: int, in_channels: int, generator: Any = None) -> int:
    count, c = _conv(in_channels, 16, 3, False) + 32, 16
    for k in (16, 32, 64):
        for block in range((depth - 2) // 6):
            count += _conv(c if not block else k, k, 3, False) + _conv(k, k, 3, False) + 4 * k
        count += _conv(c, k, 1, False) + 2 * k if k != c and shortcut == "B" else 0
        c = k
    return count + c * num_classes + num_classes


def _densely(images: Any, **o: Any) -> int:
    k, inner, c = o["growth_rate"], o["bn_size"] * o["growth_rate"], o["num_init_features"]
    count = _conv(3, c, 7, False) + 2 * c
    for number, layers in enumerate(o["block_config"]):
        if number:
            count, c = count + 2 * c + _conv(c, c // 2, 1, False), c // 2
        for _ in range(layers):
            count += 2 * c + _conv(c, inner, 1, False) + 2 * inner + _conv(inner, k, 3, False)
            c += k
    return count + 2 * c + (c + 1) * o["num_classes"]


def _staged(**o: Any) -> int:
    bottleneck = o["block"] is models.resnet.Bottleneck
    count, c = _conv(o["in_channels"], 64, 7, False) + 128, 64
    for stage, blocks in enumerate(o["layers"]):
        width = 64 << stage
        outer = width * (4 if bottleneck else 1)
        for block in range(blocks):
            groups = o.get("groups", 1)
            inner = width * o.get("width_per_group", 64) // 64 * groups
            if bottleneck:
                count += _conv(c, inner, 1, False) + _conv(inner // groups, inner, 3, False)
                count += _conv(inner, outer, 1, False) + 4 * inner + 2 * outer
            else:
                count += _conv(c, width, 3, False) + _conv(width, width, 3, False) + 4 * width
            count += _conv(c, outer, 1, False) + 2 * outer if not block and (stage or c != outer) else 0
            c = outer
    return count + (c + 1) * o["num_classes"]


def _coded(images: Any, sizes: Any) -> int:
    return sum(2 * a * b + a + b for a, b in zip(sizes, sizes[1:]))


def _segmented(images: Any, num_classes: int, in_channels: int, width: int, padding: int) -> int:
    widths = [width << step for step in range(5)]
    count = sum(_conv(c, k, 3) + _conv(k, k, 3) for c, k in zip([in_channels, *widths], widths))
    count += sum(4 * k * c + k + _conv(c, k, 3) + _conv(k, k, 3) for k, c in zip(widths, widths[1:]))
    return count + _conv(width, num_classes, 1)


def lines() -> Iterator[Line]:
    """Yield the lines of numbanet.models."""
    words: dict[str, Any] = {"words": _WORDS}
    run: dict[str, Any] = {**words, "tensors": True, "constants": (0,), "tolerance": 2e-3, "exact": False}

    def small(name: str, draw: Callable[[Draw], Call], size: Callable[..., int]) -> Line:
        return Line(f"models.{name}", _run(getattr(models, name)), draw, size, **run)

    def counted(name: str, builder: str) -> Line:
        loose = builder == "mobilenet_v2"  # which can be made of other widths, whose sizes are not published
        return Line(
            f"models.{name}", _counted(getattr(models, name)), _of_name(builder), _published(builder), loose=loose,
            **words,
        )  # fmt: skip

    ran = {"resnet20": (1, 9), "all_cnn": (9, 12), "squeezenet1_1": (33, 36), "shufflenet_v2_x1_0": (1, 33)}
    for name in SIZES:
        if name in ran:
            size = _published(name)
            yield small(name, _plain(*ran[name]), lambda images, size=size, **o: size(**o))
        else:
            yield counted(name, name)
    classes = {"AlexNet": "alexnet", "ZFNet": "zfnet", "GoogLeNet": "googlenet", "MobileNetV2": "mobilenet_v2",
               "ShuffleNetV2": "shufflenet_v2_x1_0", "FCN": "fcn_resnet50"}  # fmt: skip
    for name, builder in classes.items():
        yield counted(name, builder)
    yield Line(
        "models.VGG", _counted(models.VGG),
        lambda d: ((), {**_options(d), "depth": d.pick(11, 13, 16, 19), "batch_norm": d.chance(0.5)}),
        lambda depth, batch_norm, **o: _published(f"vgg{depth}{'_bn' if batch_norm else ''}")(**o), **words,
    )  # fmt: skip
    yield Line(
        "models.SqueezeNet", _counted(models.SqueezeNet),
        lambda d: ((), {**_options(d), "version": d.pick("1_0", "1_1")}),
        lambda version, **o: _published(f"squeezenet{version}")(**o), **words,
    )  # fmt: skip
    yield Line(
        "models.get", _counted(models.get),
        lambda d: ((d.pick(*sorted(SIZES.keys() - {"fcn_resnet50"})),), _options(d)),
        lambda name, **o: _published(name)(**o), **words,
    )  # fmt: skip
    yield Line("models.names", models.names, lambda d: ((), {}), _known, **words)
    yield Line("models.ResNet", _counted(models.ResNet), _stages, _staged, **words)
    yield Line(
        "models.FCNHead", _run(models.FCNHead),
        lambda d: ((d.floats((1, c := d.integer(4, 12), 3, 3)),), {"in_channels": c, "channels": d.integer(1, 4)}),
        lambda x, in_channels, channels: (
            _conv(in_channels, in_channels // 4, 3, False) + in_channels // 4 * 2 + _conv(in_channels // 4, channels, 1)
        ), **run,
    )  # fmt: skip
    yield small("DenseNet", _dense, _densely)
    yield small("ResNetCifar", _residual, _cifar)
    yield small("lenet5", _sized(12, 16), _lenet)
    yield small("digits", _sized(4, 8), _pattern((32, 64), norm=True))
    yield small("convnetjs", _sized(8, 11), _pattern((16, 20, 20), kernel=5))
    yield small("convnet", _convnet, _pattern())
    for name in ("Autoencoder", "autoencoder"):
        yield small(name, _codes, _coded)
    for name in ("UNet", "unet"):
        yield small(name, _segments, _segmented)


def _known() -> Any:
    more = [*(f"resnet{depth}" for depth in (32, 44, 110)), "convnet", "convnetjs", "digits", "lenet5"]
    return tuple(sorted({*SIZES, *more} - {"fcn_resnet50"}))
