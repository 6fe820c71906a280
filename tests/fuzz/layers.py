"""The table of numbanet.nn: a layer is made, and called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import numbanet as nnet
from numbanet import Tensor, nn
from tests.fuzz import tensors
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Drawing, Line
from tests.fuzz.draws import elements, losses, norms, shapes, windows


def _layer(cls: Any) -> Callable[..., Any]:
    """Return a function that makes a layer from its arguments, and calls it with the inputs, in their dtype."""

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(inputs, tuple) or not all(isinstance(x, Tensor) for x in inputs):
            raise TypeError("inputs must be Tensors")
        nnet.manual_seed(1)
        layer = cls(*args, **kwargs)
        if inputs and inputs[0].dtype == np.float64:
            layer.double()
        return layer(*inputs)

    call.about = cls  # type: ignore[attr-defined]
    return call


def _of(draw: Drawing, inputs: int = 1) -> Drawing:
    """Return a draw of (inputs, options...) from that of a function of inputs and options."""

    def drawn(d: Draw) -> Call:
        args, kwargs = draw(d)
        return (args[:inputs], *args[inputs:]), kwargs

    return drawn


def _plain(d: Draw) -> Call:
    return (elements.one(d)[0],), {}


def _convolution(transposed: bool = False) -> Drawing:
    def drawn(d: Draw) -> Call:
        if transposed:
            (x, weight, bias, stride, padding, output_padding, groups, dilation), _ = windows.conv_transpose2d(d)
            c, k = weight.shape[0], weight.shape[1] * groups
            options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
        else:
            x, weight, bias, (stride, padding, dilation, groups) = windows.conv2d(d)
            c, k = weight.shape[1] * groups, weight.shape[0]
            options = {"stride": stride, "padding": padding, "dilation": dilation}
            if isinstance(padding, tuple) and isinstance(padding[0], tuple):
                options["padding"] = 1
        kernel = weight.shape[2:] if d.chance(0.5) else list(weight.shape[2:])
        return ((x,), c, k, kernel), {**options, "groups": groups, "bias": bias is not None}

    return drawn


def _conv1d(d: Draw) -> Call:
    (x, weight, bias, stride, padding, dilation, groups), _ = tensors._conv1d(d)
    c = x.shape[-2]
    return ((x,), c, len(weight), weight.shape[2]), {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias is not None,
    }  # fmt: skip


def _lazy_conv(d: Draw) -> Call:
    ((x,), _, *rest), kwargs = _convolution()(d)
    return ((x if x.ndim == 4 else x[None],), *rest), kwargs


def _linear(d: Draw) -> Call:
    (x, weight, bias), _ = windows.linear(d)
    return ((x,), weight.shape[1], len(weight)), {"bias": bias is not None}


def _lazy_linear(d: Draw) -> Call:
    (inputs, _, *rest), kwargs = _linear(d)
    return (inputs, *rest), kwargs


def _batch_norm(flat: bool) -> Drawing:
    def drawn(d: Draw) -> Call:
        c = d.size()
        shape = d.pick((4, c), (3, c, 5)) if flat else (d.integer(1, 3), c, 3, 4)
        return ((d.floats(shape),), c), {
            "eps": d.pick(1e-5, 1e-3), "momentum": d.pick(0.1, None), "affine": d.chance(0.7),
            "track_running_stats": d.chance(0.7),
        }  # fmt: skip

    return drawn


def _instance_norm(flat: bool) -> Drawing:
    def drawn(d: Draw) -> Call:
        c = d.size()
        return ((d.floats((2, c, 5) if flat else (2, c, 3, 4)),), c), {"affine": d.chance(0.5)}

    return drawn


def _group_norm(d: Draw) -> Call:
    (x, groups, *_), _ = norms.group_norm(d)
    return ((x,), groups, x.shape[1]), {"affine": d.chance(0.5)}


def _layer_norm(d: Draw) -> Call:
    (x, over, *_), _ = norms.layer_norm(d)
    return ((x,), over), {"elementwise_affine": d.chance(0.5)}


def _of_dim(d: Draw) -> Call:
    (x, dim), _ = elements.along(d)
    return ((x,), dim), {}


def _flatten(d: Draw) -> Call:
    return ((d.floats(d.shape(2, 4)),), 1, -1), {}


def _unflatten(d: Draw) -> Call:
    (x, dim, sizes), _ = tensors._unflatten(d)
    return ((x,), dim, sizes), {}


def _softplus(d: Draw) -> Call:
    return (elements.one(d)[0], d.pick(1.0, 2), 20.0), {}


def _hardtanh(d: Draw) -> Call:
    return (elements.one(d)[0], -1.5, d.pick(0.5, 2)), {}


def _prelu(d: Draw) -> Call:
    c = d.size()
    return ((d.floats((2, c, 3)),), d.pick(1, c)), {"init": d.pick(0.25, 0.1)}


def _upsample(d: Draw) -> Call:
    (x,), kwargs = shapes.interpolate(d)
    kwargs.pop("antialias", None)
    if kwargs["mode"] == "nearest-exact":
        kwargs = {**kwargs, "mode": "nearest"}
    return ((x,),), kwargs


def _upsampling(d: Draw) -> Call:
    (inputs,), kwargs = _upsample(d)
    return (inputs,), {name: kwargs[name] for name in ("size", "scale_factor") if name in kwargs}


def _reduced(draw: Drawing) -> Drawing:
    """Return a draw of ((input, target), reduction) from that of a loss."""

    def drawn(d: Draw) -> Call:
        (x, target, *_), kwargs = draw(d)
        return ((x, target),), {name: kwargs[name] for name in kwargs if name not in ("weight", "pos_weight")}

    return drawn


def _cross_entropy(d: Draw) -> Call:
    (x, target, weight, ignore, reduction, smoothing), _ = losses.cross_entropy(d)
    return ((x, target),), {"ignore_index": ignore, "reduction": reduction, "label_smoothing": smoothing}


def _nll(d: Draw) -> Call:
    (inputs,), kwargs = _cross_entropy(d)
    kwargs.pop("label_smoothing")
    return (inputs,), kwargs


def _dropout(d: Draw) -> Call:
    (x, p, _), _ = tensors._dropout(d)
    return ((x,), p), {}


def _dropout2d(d: Draw) -> Call:
    (x, p, _), _ = tensors._dropout2d(d)
    return ((x,), p), {}


def _padded(dims: int, constant: bool = False) -> Drawing:
    def drawn(d: Draw) -> Call:
        channels, sizes = d.size(), tuple(d.integer(4, 9) for _ in range(dims))
        x = d.floats((channels, *sizes) if d.chance(0.2) else (d.integer(1, 3), channels, *sizes))
        widths: Any = d.integer(0, 3)
        if d.chance(0.6):
            widths = d.pick(tuple, list)(d.integer(-1, 3) for _ in range(2 * dims))
        return ((x,), widths, *([d.pick(0.0, 1.5, -2)] if constant else [])), {}

    return drawn


PADS = {
    f"{kind}Pad{dims}d": (_padded(dims, kind == "Constant"), {})
    for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular")
    for dims in (1, 2)
}
_FORMATTED = (
    "Conv2d", "ConvTranspose2d", "LazyConv2d", "Dropout2d", "GroupNorm", "InstanceNorm2d", "BatchNorm2d", "MaxPool2d",
    "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "LocalResponseNorm", "PixelShuffle", "PixelUnshuffle",
    "Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d", *(name for name in PADS if name.endswith("2d")),
)  # fmt: skip


def _formatted(name: str, draw: Drawing) -> Drawing:
    """Return a draw of a layer that now and then has its channels last, and pools that now and then pad by a word."""

    def drawn(d: Draw) -> Call:
        ((x, *others), *rest), kwargs = draw(d)
        if name in ("MaxPool2d", "AvgPool2d") and d.chance(0.3):
            rest[2] = d.pick("valid", "same_upper")
        if x.ndim == 4 and d.chance(0.3):
            x, kwargs = np.moveaxis(x, 1, -1).copy(), {**kwargs, "data_format": "channels_last"}
        return ((x, *others), *rest), kwargs

    return drawn if name in _FORMATTED else draw


LAYERS: dict[str, tuple[Drawing, dict[str, Any]]] = {
    "GELU": (_of(elements.gelu), {}), "LeakyReLU": (_of(elements.slope), {}), "LogSoftmax": (_of_dim, {}),
    "ReLU": (_plain, {}), "Sigmoid": (_plain, {}), "SiLU": (_plain, {}), "Softmax": (_of_dim, {}), "Tanh": (_plain, {}),
    "Identity": (_plain, {}), "Conv2d": (_convolution(), {"exact": False}), "Conv1d": (_conv1d, {"exact": False}),
    "ConvTranspose2d": (_convolution(True), {"exact": False}), "Dropout": (_dropout, {"loose": True}),
    "Dropout2d": (_dropout2d, {}),
    "Flatten": (_flatten, {}), "Unflatten": (_unflatten, {}), "GroupNorm": (_group_norm, {"exact": False}),
    "InstanceNorm1d": (_instance_norm(True), {"exact": False}),
    "InstanceNorm2d": (_instance_norm(False), {"exact": False}),
    "LayerNorm": (_layer_norm, {"exact": False}), "LazyConv2d": (_lazy_conv, {"exact": False}),
    "LazyLinear": (_lazy_linear, {"exact": False}), "Linear": (_linear, {"exact": False}),
    "CrossEntropyLoss": (_cross_entropy, {"also": (IndexError,)}), "MSELoss": (_reduced(tensors._pair_loss), {}),
    "NLLLoss": (_nll, {"also": (IndexError,)}), "BatchNorm1d": (_batch_norm(True), {"exact": False}),
    "BatchNorm2d": (_batch_norm(False), {"exact": False}), "ELU": (_of(elements.slope), {}),
    "Hardsigmoid": (_plain, {}), "Hardswish": (_plain, {}), "Hardtanh": (_hardtanh, {}), "Mish": (_plain, {}),
    "PReLU": (_prelu, {}),
    "ReLU6": (_plain, {}), "Softplus": (_softplus, {}), "BCELoss": (_reduced(tensors._probabilities), {}),
    "BCEWithLogitsLoss": (_reduced(tensors._logits), {}), "HuberLoss": (_reduced(tensors._pair_loss), {}),
    "KLDivLoss": (_reduced(tensors._kl), {}), "L1Loss": (_reduced(tensors._pair_loss), {}),
    "MultiMarginLoss": (_reduced(tensors._margin), {"also": (IndexError,)}),
    "SmoothL1Loss": (_reduced(tensors._pair_loss), {}), "AdaptiveAvgPool2d": (_of(windows.adaptive), {}),
    "AdaptiveMaxPool2d": (_of(windows.adaptive), {}), "AvgPool2d": (_of(windows.avg_pool), {}),
    "MaxPool2d": (_of(lambda d: (windows.max_pool(d)[0][:5], {"ceil_mode": d.chance(0.3)})), {}),
    "Upsample": (_upsample, {"exact": False}),
    "UpsamplingBilinear2d": (_upsampling, {"exact": False}), "UpsamplingNearest2d": (_upsampling, {"exact": False}),
    "LocalResponseNorm": (_of(norms.response), {"exact": False}), "ChannelShuffle": (_of(shapes.channel_shuffle), {}),
    "PixelShuffle": (_of(shapes.pixel_shuffle), {}), "PixelUnshuffle": (_of(shapes.pixel_unshuffle), {}),
    "Unfold": (_of(shapes.unfold), {}), "Fold": (_of(shapes.fold), {}), **PADS,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ what holds layers


def _chain(d: Draw) -> Call:
    return ((d.floats((2, 3, 4)),), [("relu", 0), ("tanh", 0), ("identity", 0)][: d.integer(1, 3)]), {}


def _modules(names: Any) -> list[Any]:
    if names is None:
        raise TypeError("modules must be modules")
    known = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}
    if not isinstance(names, (list, tuple)):
        return [names]
    if None in names:
        raise TypeError("names: None is no module that can be called")
    return [known[n[0]]() if isinstance(n, tuple) and n and n[0] in known else n for n in names]


def _check(inputs: Any) -> None:
    if not isinstance(inputs, tuple) or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise TypeError("inputs must be a tuple of one Tensor")


def _sequential(inputs: Any, names: Any) -> Any:
    _check(inputs)
    return nn.Sequential(*_modules(names))(*inputs)


def _module_list(inputs: Any, names: Any) -> Any:
    _check(inputs)
    x = inputs[0]
    for module in nn.ModuleList(_modules(names)):
        x = module(x)
    return x


def _fused(inputs: Any, channels: Any) -> Any:
    _check(inputs)
    nnet.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    if inputs[0].dtype == np.float64:
        model.double()
    with nnet.no_grad():
        return nn.fuse(model)(inputs[0])


def _summary(inputs: Any, shape: Any) -> Any:
    return nn.summary(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), shape).parameters


def _module(inputs: Any, name: Any) -> Any:
    _check(inputs)
    module = nn.Module()
    module.add_module(name, nn.ReLU())
    return (
        module.get_submodule(name)(inputs[0]) if hasattr(module, "get_submodule") else getattr(module, name)(inputs[0])
    )


def _parameter(inputs: Any, flag: Any) -> Any:
    _check(inputs)
    return nn.Parameter(inputs[0].detach(), flag) * 1


def _containers() -> Iterator[Line]:
    words = ("modules", "module", "model", "name", "names", "input_shape", "data", "in_channels", "array")
    options: dict[str, Any] = {"tensors": True, "words": words}
    yield Line("nn.Sequential", _sequential, _chain, **options)
    yield Line("nn.ModuleList", _module_list, _chain, **options)
    yield Line(
        "nn.fuse", _fused, lambda d: (((d.floats((1, 3, 5, 5)),), 3), {}), **options, tolerance=1e-4, exact=False
    )
    yield Line(
        "nn.summary", _summary, lambda d: (((), (3, d.integer(3, 9), d.integer(3, 9))), {}), lambda *_: 112, **options
    )
    yield Line(
        "nn.Module", _module, lambda d: ((elements.one(d)[0], d.pick("a", "layer1")), {}), **options, also=(KeyError,)
    )  # fmt: skip
    yield Line("nn.Parameter", _parameter, lambda d: ((elements.one(d)[0], d.chance(0.5)), {}), **{
        **options, "also": (RuntimeError,), "words": (*words, "gradient"),
    })  # fmt: skip


def lines() -> list[Line]:
    """Return the lines of numbanet.nn."""
    words = ("inputs", "weight", "channels", "values", "target", "sizes")
    layers = [
        Line(
            f"nn.{name}", _layer(getattr(nn, name)), _formatted(name, draw), tensors=True, words=words, **options,
            tolerance=5e-3 if "Norm" in name else 2e-4, absolute=1e-5 if "Norm" in name or "Entropy" in name else 1e-6,
        )  # fmt: skip
        for name, (draw, options) in LAYERS.items()
    ]  # fmt: skip
    return [*layers, *_containers()]
