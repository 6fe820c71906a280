"""The layer tables agree with what is published about their networks."""

from __future__ import annotations

import pytest

from benchmarks import layers
from benchmarks.layers import LINEARS, PASSES, TABLES, ConvLayer, conv
from numbanet.problem.conv import conv2d_problem

ALL = [pytest.param(layer, id=f"{table} {layer.name}") for table, chosen in TABLES.items() for layer in chosen]


def _macs_an_image(table: tuple[ConvLayer, ...]) -> int:
    return sum(layer.count * layer.batch(1).macs for layer in table)


def _linear_macs(table: str) -> int:
    return sum(layer.batch(1).macs for layer in LINEARS[table])


@pytest.mark.parametrize(
    ("table", "convolutions", "gmacs"), [("resnet50", 53, 4.09), ("vgg16", 13, 15.47), ("mobilenet_v2", 52, 0.301)]
)
def test_published_multiply_adds(table, convolutions, gmacs):
    assert sum(layer.count for layer in TABLES[table]) == convolutions
    assert (_macs_an_image(TABLES[table]) + _linear_macs(table)) / 1e9 == pytest.approx(gmacs, abs=0.005 * gmacs)


@pytest.mark.parametrize(
    ("table", "parameters"), [("resnet50", 25_502_912), ("vgg16", 138_344_128), ("mobilenet_v2", 3_469_760)]
)
def test_published_weights(table, parameters):
    """torchvision's parameter counts, less those of batch norm and the biases."""
    count = sum(layer.count * layer.k * layer.c // layer.groups * layer.r * layer.s for layer in TABLES[table])
    count += sum(layer.in_features * layer.out_features for layer in LINEARS[table])
    assert count == parameters


def test_cifar_networks():
    # He et al. give 0.27 million parameters for ResNet-20; its convolutions and classifier take 40.6 million
    # multiply-adds.
    assert sum(layer.count for layer in layers.RESNET20) == 19
    assert _macs_an_image(layers.RESNET20) + 64 * 10 == 40_551_040
    # 5x5 filters: 16 on 3 channels of 32x32, 20 on 16 of 16x16, 20 on 20 of 8x8.
    assert _macs_an_image(layers.CONVNETJS) == 25 * (1024 * 3 * 16 + 256 * 16 * 20 + 64 * 20 * 20)
    parts = layers.CONVNETJS + layers.RESNET20 + layers.WIDE256
    assert _macs_an_image(layers.CIFAR) == _macs_an_image(parts)


@pytest.mark.parametrize("layer", ALL)
def test_layer_is_the_problem_of_the_package(layer):
    problem = conv2d_problem(
        "forward", layer.x_shape, layer.weight_shape, "float32", layer.stride, layer.pad, layer.dilation, layer.groups
    )
    assert layer.y_shape == (problem.n, problem.k, problem.p, problem.q)
    assert layer.flops() == problem.flops
    assert min(layer.y_shape) > 0


@pytest.mark.parametrize("table", TABLES)
def test_names_are_distinct(table):
    assert len({layer.name for layer in TABLES[table]}) == len(TABLES[table])


@pytest.mark.parametrize(("first", "then"), [*zip(layers.WIDE256, layers.WIDE256[1:])])
def test_layers_follow_each_other(first, then):
    assert first.k == then.c
    assert then.h in (first.p, first.p // 2)


def test_odd_shapes_are_covered():
    odd = layers.ODD
    assert {35, 17} <= {layer.h for layer in odd}
    assert {48, 160, 288} <= {layer.c for layer in odd}
    assert {20, 40, 208} <= {layer.k for layer in odd}
    assert {(1, 7), (7, 1), (5, 5), (11, 11)} <= {(layer.r, layer.s) for layer in odd}
    assert any(layer.dilation != (1, 1) for layer in odd)
    assert any(1 < layer.groups < layer.c for layer in odd)
    assert any(layer.groups == layer.c for layer in odd)


def test_flops_and_bytes_by_hand():
    layer = conv(4, 6, 5, 3, pad=0, groups=2, n=2)  # x (2, 4, 5, 5), weight (6, 2, 3, 3), y (2, 6, 3, 3)
    for which in PASSES:
        assert layer.flops(which) == 2 * (2 * 6 * 3 * 3) * (2 * 3 * 3)
        assert layer.bytes(which) == 4 * (2 * 4 * 25 + 6 * 2 * 9 + 2 * 6 * 9)
    with pytest.raises(ValueError, match="which must be one of .* got 'sideways'"):
        layer.flops("sideways")


@pytest.mark.parametrize("pool", layers.POOLS, ids=lambda pool: pool.name)
def test_pooling_shapes(pool):
    assert pool.kind in ("max", "avg")
    assert pool.pad <= pool.size // 2
    assert min(pool.y_shape) > 0


def test_pooling_halves():
    assert layers.PoolLayer("", "max", 4, 64, 112, 112, 3, 2, 1).y_shape == (4, 64, 56, 56)
