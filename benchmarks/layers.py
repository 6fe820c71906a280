"""Tables of layer shapes, shared by benchmarks and tests.

A table walks through a network, convolution by convolution, and keeps every distinct one with the number of times that
it occurs, so sums over a table weighted by `count` are sums over the network. ``ODD`` is no network: it holds shapes
that are no multiples of anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

PASSES = ("forward", "backward_input", "backward_weight")


@dataclass(frozen=True)
class ConvLayer:
    """A convolution: input (N, C, H, W), weight (K, C/groups, R, S).

    Attributes
    ----------
    name : str
    n, c, h, w : int
        Shape of the input.
    k, r, s : int
        Out-channels and filter size.
    stride, pad, dilation : (int, int)
        For height and width.
    groups : int
    count : int
        How many times the network of the table has this layer.
    """

    name: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    count: int = 1

    @property
    def p(self) -> int:
        """Output height."""
        return (self.h + 2 * self.pad[0] - self.dilation[0] * (self.r - 1) - 1) // self.stride[0] + 1

    @property
    def q(self) -> int:
        """Output width."""
        return (self.w + 2 * self.pad[1] - self.dilation[1] * (self.s - 1) - 1) // self.stride[1] + 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input."""
        return self.n, self.c, self.h, self.w

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight."""
        return self.k, self.c // self.groups, self.r, self.s

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output."""
        return self.n, self.k, self.p, self.q

    @property
    def macs(self) -> int:
        """Multiply-adds of the direct method, taps in the padding included."""
        return self.n * self.p * self.q * self.k * self.r * self.s * (self.c // self.groups)

    def flops(self, which: str = "forward") -> int:
        """Return the floating-point operations of the direct method: the same number for every pass.

        Raises
        ------
        ValueError
            If `which` is none of `PASSES`.
        """
        _check_pass(which)
        return 2 * self.macs

    def bytes(self, which: str = "forward", itemsize: int = 4) -> int:
        """Return the least memory traffic of a pass: both operands are read once, the result is written once.

        Raises
        ------
        ValueError
            If `which` is none of `PASSES`.
        """
        _check_pass(which)
        return itemsize * (_size(self.x_shape) + _size(self.weight_shape) + _size(self.y_shape))

    def batch(self, n: int) -> ConvLayer:
        """Return the same layer for another batch size."""
        return replace(self, n=n)


@dataclass(frozen=True)
class LinearLayer:
    """A fully connected layer: input (N, in_features), weight (out_features, in_features)."""

    name: str
    n: int
    in_features: int
    out_features: int

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.n * self.in_features * self.out_features

    def batch(self, n: int) -> LinearLayer:
        """Return the same layer for another batch size."""
        return replace(self, n=n)


@dataclass(frozen=True)
class PoolLayer:
    """A pooling layer: square windows over an input (N, C, H, W)."""

    name: str
    kind: str
    n: int
    c: int
    h: int
    w: int
    size: int
    stride: int
    pad: int = 0

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input."""
        return self.n, self.c, self.h, self.w

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output."""
        p, q = ((size + 2 * self.pad - self.size) // self.stride + 1 for size in (self.h, self.w))
        return self.n, self.c, p, q


def _check_pass(which: str) -> None:
    if which not in PASSES:
        raise ValueError(f"which must be one of {', '.join(map(repr, PASSES))}, got {which!r}")


def _size(shape: tuple[int, ...]) -> int:
    product = 1
    for number in shape:
        product *= number
    return product


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def conv(
    c: int,
    k: int,
    size: int,
    filter: int | tuple[int, int],
    stride: int = 1,
    pad: int | tuple[int, int] | None = None,
    dilation: int = 1,
    groups: int = 1,
    n: int = 1,
) -> ConvLayer:
    """Return a layer on square images, named after its shape; `pad` None keeps the size of the image at stride 1."""
    r, s = _pair(filter)
    pads = _pair(pad) if pad is not None else (dilation * (r - 1) // 2, dilation * (s - 1) // 2)
    depthwise = groups == c == k
    name = f"{r}x{s}{f'/{stride}' if stride > 1 else ''} {c}-{k} @{size}"
    name += f" d{dilation}" if dilation > 1 else ""
    name += " dw" if depthwise else f" g{groups}" if groups > 1 else ""
    return ConvLayer(name, n, c, size, size, k, r, s, (stride, stride), pads, (dilation, dilation), groups)


def distinct(layers: Iterable[ConvLayer], n: int) -> tuple[ConvLayer, ...]:
    """Return each distinct layer once, for batch size n, with the number of times that it occurs as its `count`."""
    counts: dict[ConvLayer, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(replace(layer, n=n, count=count) for layer, count in counts.items())


def _resnet50() -> Iterator[ConvLayer]:
    yield conv(3, 64, 224, 7, stride=2)
    c, size = 64, 56
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            yield conv(c, width, size, 1)
            yield conv(width, width, size, 3, stride)
            if block == 0:
                yield conv(c, 4 * width, size, 1, stride)
            size //= stride
            yield conv(width, 4 * width, size, 1)
            c = 4 * width


def _vgg16() -> Iterator[ConvLayer]:
    c, size = 3, 224
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            yield conv(c, width, size, 3)
            c = width
        size //= 2


def _mobilenet_v2() -> Iterator[ConvLayer]:
    yield conv(3, 32, 224, 3, stride=2)
    c, size = 32, 112
    settings = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expansion, width, blocks, first_stride in settings:
        for block in range(blocks):
            stride, hidden = first_stride if block == 0 else 1, c * expansion
            if expansion > 1:
                yield conv(c, hidden, size, 1)
            yield conv(hidden, hidden, size, 3, stride, groups=hidden)
            size //= stride
            yield conv(hidden, width, size, 1)
            c = width
    yield conv(c, 1280, size, 1)


def _convnetjs() -> Iterator[ConvLayer]:
    yield conv(3, 16, 32, 5)
    yield conv(16, 20, 16, 5)
    yield conv(20, 20, 8, 5)


def _resnet20() -> Iterator[ConvLayer]:
    yield conv(3, 16, 32, 3)
    c, size = 16, 32
    for width in (16, 32, 64):
        for block in range(3):
            stride = 2 if block == 0 and width != c else 1
            yield conv(c, width, size, 3, stride)
            c, size = width, size // stride
            yield conv(c, width, size, 3)


def _wide256() -> Iterator[ConvLayer]:
    """The 64-256-256 net: a 2x2 first layer, then three blocks of convolution, 2x2 pooling, convolution."""
    yield conv(3, 24, 32, 2, pad=0)
    c, size = 24, 31
    for width in (64, 256, 256):
        yield conv(c, width, size, 3)
        size //= 2
        yield conv(width, width, size, 3)
        c = width


def _odd() -> Iterator[ConvLayer]:
    yield conv(3, 64, 224, 11, stride=4, pad=2)
    yield conv(48, 64, 35, 5)
    yield conv(288, 48, 35, 1)
    yield conv(48, 208, 35, 3)
    yield conv(288, 384, 35, 3, stride=2, pad=0)
    yield conv(160, 160, 17, (1, 7))
    yield conv(160, 208, 17, (7, 1))
    yield conv(288, 40, 17, 3)
    yield conv(160, 20, 17, 5)
    yield conv(40, 20, 35, 3)
    yield conv(160, 40, 17, 1)
    yield conv(48, 48, 35, 3, stride=2)
    yield conv(160, 160, 35, 3, dilation=2)
    yield conv(288, 40, 33, 3, dilation=6)
    yield conv(128, 128, 56, 3, groups=32)
    yield conv(160, 208, 17, 3, groups=4)
    yield conv(240, 240, 28, 5, stride=2, groups=240)
    yield conv(48, 48, 35, 3, groups=48)


def _single() -> Iterator[ConvLayer]:
    """One image: what there is to share between threads lies in the channels, or in the rows."""
    yield conv(3, 64, 224, 7, stride=2)
    yield conv(3, 64, 224, 11, stride=4, pad=2)
    yield conv(64, 64, 56, 3)
    yield conv(512, 512, 7, 3)
    yield conv(256, 1024, 14, 1)
    yield conv(2048, 512, 7, 1)
    yield conv(160, 160, 17, (1, 7))
    yield conv(288, 48, 35, 1)
    yield conv(576, 576, 14, 3, stride=2, groups=576)


RESNET50 = distinct(_resnet50(), n=4)
VGG16 = distinct(_vgg16(), n=4)
MOBILENET_V2 = distinct(_mobilenet_v2(), n=4)
CONVNETJS = distinct(_convnetjs(), n=128)
RESNET20 = distinct(_resnet20(), n=128)
WIDE256 = distinct(_wide256(), n=128)
CIFAR = distinct((*_convnetjs(), *_resnet20(), *_wide256()), n=128)
ODD = distinct(_odd(), n=4)
SINGLE = distinct(_single(), n=1)

TABLES: dict[str, tuple[ConvLayer, ...]] = {
    "resnet50": RESNET50,
    "vgg16": VGG16,
    "mobilenet_v2": MOBILENET_V2,
    "cifar": CIFAR,
    "odd": ODD,
    "single": SINGLE,
}

LINEARS: dict[str, tuple[LinearLayer, ...]] = {
    "resnet50": (LinearLayer("2048-1000", 4, 2048, 1000),),
    "vgg16": (
        LinearLayer("25088-4096", 4, 25088, 4096),
        LinearLayer("4096-4096", 4, 4096, 4096),
        LinearLayer("4096-1000", 4, 4096, 1000),
    ),
    "mobilenet_v2": (LinearLayer("1280-1000", 4, 1280, 1000),),
    "cifar": (
        LinearLayer("320-10", 128, 320, 10),
        LinearLayer("64-10", 128, 64, 10),
        LinearLayer("256-10", 128, 256, 10),
    ),
}

POOLS: tuple[PoolLayer, ...] = (
    PoolLayer("max 3x3/2 64 @112", "max", 4, 64, 112, 112, 3, 2, 1),
    PoolLayer("max 2x2/2 64 @224", "max", 4, 64, 224, 224, 2, 2),
    PoolLayer("max 2x2/2 16 @32", "max", 128, 16, 32, 32, 2, 2),
    PoolLayer("avg 2x2/2 256 @16", "avg", 128, 256, 16, 16, 2, 2),
    PoolLayer("avg 7x7 2048 @7", "avg", 4, 2048, 7, 7, 7, 7),
)

# Activations (N, C, H, W) for batch norm, relu and the like.
ACTIVATIONS: dict[str, tuple[int, int, int, int]] = {
    "64 @112": (4, 64, 112, 112),
    "256 @56": (4, 256, 56, 56),
    "2048 @7": (4, 2048, 7, 7),
    "16 @32": (128, 16, 32, 32),
}

# Batches of images (N, C, H, W) to be augmented.
IMAGES: dict[str, tuple[int, int, int, int]] = {"512 @32": (512, 3, 32, 32), "32 @224": (32, 3, 224, 224)}

# Scores (N, classes) for softmax and cross-entropy.
SCORES: dict[str, tuple[int, int]] = {"128x10": (128, 10), "256x1000": (256, 1000)}

# Matrix products (M, K) by (K, N): square, tall and narrow, small.
MATMULS: tuple[tuple[int, int, int], ...] = ((512, 512, 512), (1024, 1024, 1024), (16384, 64, 64), (64, 64, 64))

Product = tuple[int, int, int]

# Products (M, K) by (K, N) in all four memory orders: squares, long and narrow ones, linear layers, odd sizes.
PRODUCTS: tuple[Product, ...] = (
    *((size, size, size) for size in (8, 16, 32, 64, 128, 256, 300, 512, 1024)),
    (64, 4096, 64), (4096, 64, 64), (64, 64, 4096), (100000, 16, 16), (16, 100000, 16), (16, 16, 100000),
    (1, 1280, 1000), (4, 2048, 1000), (128, 320, 10), (35, 17, 61), (1000, 33, 290),
)  # fmt: skip
