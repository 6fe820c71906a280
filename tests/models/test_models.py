"""The models: parameter counts as published, shapes, names, options, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import models, nn


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def kinds(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.children()]


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("lenet5", (1, 28, 28), 61_706),
        ("convnetjs", (3, 32, 32), 22_466),
        ("digits", (1, 8, 8), 21_482),
        ("resnet20", (3, 32, 32), 269_722),  # the paper: 0.27 M
    ],
)
def test_parameters_and_scores(device: str, name: str, shape: tuple[int, ...], parameters: int) -> None:
    model = models.get(name)
    assert count(model) == parameters
    with nnet.no_grad():
        assert model(nnet.tensor(np.zeros((2, *shape), np.float32))).shape == (2, 10)


@pytest.mark.parametrize(
    ("depth", "parameters"), [(32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)  # the paper: 0.46, 0.66, 0.85 and 1.7 M
def test_deeper_residual_networks(depth: int, parameters: int) -> None:
    assert count(models.get(f"resnet{depth}")) == parameters


def test_multiply_adds_of_resnet20() -> None:
    """40.6 M in the convolutions (usually given as 0.041 G)."""
    found = nn.summary(models.get("resnet20"), (3, 32, 32))
    assert sum(layer.multiply_adds for layer in found.layers if layer.kind == "Conv2d") == 40_550_400
    assert all("never seen" not in remark for remark in found.remarks)


@pytest.mark.parametrize("name", ["lenet5", "convnetjs", "digits", "resnet20", "convnet"])
def test_options_of_every_model(device: str, name: str) -> None:
    model = models.get(
        name, num_classes=3, in_channels=2, image_size=(20, 24), generator=np.random.default_rng(0)
    ).eval()
    with nnet.no_grad():
        assert model(nnet.tensor(np.zeros((1, 2, 20, 24), np.float32))).shape == (1, 3)
    again = models.get(name, 3, 2, (20, 24), generator=np.random.default_rng(0))
    first, second = model.state_dict(), again.state_dict()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_registry_errors() -> None:
    with pytest.raises(ValueError, match="name must be one of .*'convnet', .* got 'vgg'"):
        models.get("vgg")
    with pytest.raises(TypeError, match="resnet20 has no option depht; it has num_classes, .*shortcut"):
        models.get("resnet20", depht=3)
    with pytest.raises(TypeError, match="resnet56 has no option depth"):
        models.get("resnet56", depth=3)
    for option in ("pretrained", "weights"):
        with pytest.raises(TypeError, match=f"resnet18 has no option {option}: numbanet brings no weights.*load_model"):
            models.get("resnet18", **{option: True})
    assert set(models.names()) >= {"lenet5", "convnetjs", "resnet20", "convnet", "digits"}


@pytest.mark.parametrize("name", models.names())
def test_an_unknown_option_lists_those_that_a_model_has(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} has no option classes; it has num_classes, ") as caught:
        models.get(name, classes=10)
    options = str(caught.value).partition("; it has ")[2].split(", ")
    assert {"in_channels", "generator"} <= set(options) and not {"self", "block", "depth", "options"} & set(options)


@pytest.mark.parametrize(
    ("name", "option", "plain"),
    [("vgg16_bn", "batch_norm", "vgg16"), ("resnext50_32x4d", "groups", "resnet50"),
     ("resnext50_32x4d", "width_per_group", "resnet50"), ("resnet32", "depth", None)],
)  # fmt: skip
def test_what_a_name_stands_for_is_no_option(name: str, option: str, plain: str | None) -> None:
    with pytest.raises(TypeError, match=f"{name} has no option {option}; it has num_classes, ") as caught:
        models.get(name, **{option: 1})
    assert option not in str(caught.value).partition("; it has ")[2].split(", ")
    if plain is not None:
        with pytest.raises(TypeError, match=rf"; it has .*\b{option}\b"):
            models.get(plain, classes=1)


def test_names_are_the_models_of_the_functions() -> None:
    assert models.get("resnext50_32x4d", 2).layer1[0].conv2.groups == 32
    assert [*models.get("resnext50_32x4d", 2).state_dict()] == [*models.resnext50_32x4d(2).state_dict()]
    assert isinstance(models.get("vgg11_bn", 2).features[1], nn.BatchNorm2d)


def test_options_of_a_model_reach_its_class() -> None:
    assert models.get("densenet121", 3, drop_rate=0.25).features[4][0].drop.p == 0.25
    assert models.get("mobilenet_v2", 3, width_mult=0.5).classifier[1].weight.shape == (3, 1280)


def test_convnetjs_layers() -> None:
    model = models.convnetjs()
    assert kinds(model) == ["Conv2d", "ReLU", "MaxPool2d"] * 3 + ["Flatten", "Linear"]
    assert [layer.weight.shape for layer in model if isinstance(layer, nn.Conv2d)] == [
        (16, 3, 5, 5), (20, 16, 5, 5), (20, 20, 5, 5),
    ]  # fmt: skip


def test_lenet5_layers() -> None:
    shapes = [array.shape for key, array in models.lenet5().state_dict().items() if key.endswith("weight")]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    with pytest.raises(ValueError, match="image_size must be at least 12, got 8"):
        models.lenet5(image_size=8)


# ----------------------------------------------------------------------------------------------------------- builder


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"channels": ()}, ["Flatten", "Linear"]),
        ({"channels": (4,), "convs": 2}, ["Conv2d", "ReLU"] * 2 + ["MaxPool2d", "Flatten", "Linear"]),
        ({"channels": (4, 5), "pool": False}, ["Conv2d", "ReLU"] * 2 + ["Flatten", "Linear"]),
        ({"channels": (4,), "hidden": (8, 6)},
         ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]),
        ({"channels": (4,), "batch_norm": True, "dropout": 0.5, "hidden": (8,), "softmax": True},
         ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Flatten", "Dropout", "Linear", "ReLU", "Dropout", "Linear",
          "Softmax"]),
        ({"channels": (4,), "convs": 0}, ["MaxPool2d", "Flatten", "Linear"]),
    ],
)  # fmt: skip
def test_convnet_follows_the_pattern(device: str, options: dict[str, Any], expected: list[str]) -> None:
    model = models.convnet(5, 3, (8, 12), **options)
    assert kinds(model) == expected
    model.eval()
    with nnet.no_grad():
        result = model(nnet.tensor(np.ones((2, 3, 8, 12), np.float32)))
    assert result.shape == (2, 5)
    if options.get("softmax"):
        np.testing.assert_allclose(result.cpu().numpy().sum(1), 1, rtol=1e-5)


def test_convnet_options_reach_the_layers() -> None:
    model = models.convnet(channels=(4,), kernel_size=5, batch_norm=True, dropout=0.25, hidden=(8,))
    assert model[0].kernel_size == (5, 5) and model[0].padding == (2, 2) and model[0].bias is None
    assert model[5].p == 0.25 and model[6].out_features == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd, .* got 4"),
        ({"image_size": 7}, ValueError, "image_size must be at least 8 for 3 poolings, got 7"),
        ({"convs": -1}, ValueError, "convs must be at least 0, got -1"),
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1, got 0"),
        ({"num_classes": 2.5}, TypeError, "num_classes must be an integer, got 2.5"),
        ({"channels": (4, 0, 4)}, ValueError, "channels must be at least 1, got 0"),
    ],
)
def test_convnet_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        models.convnet(**options)


# ------------------------------------------------------------------------------------------------- residual networks


def test_resnet_names_are_those_of_torchvision() -> None:
    keys = list(models.resnet20(shortcut="B").state_dict())
    assert keys[:6] == [
        "conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked",
    ]  # fmt: skip
    assert {"layer1.2.bn2.bias", "layer2.0.downsample.0.weight", "layer3.0.downsample.1.running_var", "fc.bias"} <= {
        *keys
    }
    assert "layer1.0.downsample.0.weight" not in keys
    assert count(models.resnet20(shortcut="B")) == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_zero_padding_shortcut(device: str) -> None:
    x = nnet.tensor(np.arange(2.0 * 2 * 5 * 4).reshape(2, 2, 5, 4), requires_grad=True)
    y = models.resnet_cifar.ZeroPadShortcut(2, 5)(x)
    assert y.shape == (2, 5, 3, 2)
    found, given = (t.detach().cpu().numpy() for t in (y, x))
    assert np.array_equal(found[:, :2], given[:, :, ::2, ::2]) and not found[:, 2:].any()
    y.sum().backward()
    expected = np.zeros(x.shape)
    expected[:, :, ::2, ::2] = 1
    assert x.grad is not None and np.array_equal(x.grad.cpu().numpy(), expected)


def test_resnet_block_without_weights_is_its_shortcut(device: str) -> None:
    block = models.resnet.BasicBlock(2, 4, 2, models.resnet_cifar.ZeroPadShortcut(2, 4))
    block.bn2.weight.data[...] = 0
    x = nnet.tensor(np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32))
    assert block(x).tolist() == F.relu(block.downsample(x)).tolist()


def test_resnet_initial_values() -> None:
    weight = models.resnet20(generator=np.random.default_rng(0)).layer3[1].conv1.weight.data
    assert weight.std() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"depth": 21}, r"depth must be 6n \+ 2, .* got 21"), ({"depth": 2}, "depth must be at least 8, got 2"),
     ({"shortcut": "C"}, "shortcut must be one of 'A', 'B', got 'C'")],
)  # fmt: skip
def test_resnet_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.ResNetCifar(**options)


@pytest.mark.parametrize("name", [name for name in models.names() if name != "convnet"])
def test_builders_name_the_number_of_classes(name: str) -> None:
    with pytest.raises(TypeError, match="num_classes must be an integer, got 'x'"):
        models.get(name, num_classes="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes must be at least [01], got -1"):
        models.get(name, num_classes=-1)


@pytest.mark.parametrize("name", ["alexnet", "zfnet", "vgg11", "googlenet", "mobilenet_v2", "squeezenet1_0", "convnet"])
def test_builders_name_the_dropout(name: str) -> None:
    with pytest.raises(ValueError, match="dropout must be between 0 and 1, got 1.5"):
        models.get(name, dropout=1.5)


@pytest.mark.parametrize(
    ("build", "options", "error", "message"),
    [
        (models.ResNet, {"block": 5, "layers": (1, 1, 1, 1)}, TypeError, "block must be BasicBlock, Bottleneck or"),
        (models.ResNet, {"block": models.resnet.BasicBlock, "layers": 5}, TypeError, "layers must be a sequence"),
        (models.ResNet, {"block": models.resnet.BasicBlock, "layers": (1, 1, 1)}, ValueError, "layers must hold"),
        (models.resnet50, {"width_per_group": 2**62}, ValueError, "groups . width_per_group must fit in 64 bits"),
        (models.DenseNet, {"growth_rate": None}, TypeError, "growth_rate must be an integer, got None"),
        (models.DenseNet, {"block_config": True}, TypeError, "block_config must be a sequence of sizes, got True"),
        (models.DenseNet, {"bn_size": 1.0}, TypeError, "bn_size must be an integer, got 1.0"),
        (models.DenseNet, {"drop_rate": 2}, ValueError, "drop_rate must be between 0 and 1, got 2"),
        (models.FCNHead, {"in_channels": 3, "channels": 1}, ValueError, "in_channels must be at least 4, got 3"),
        (models.FCNHead, {"in_channels": 8, "channels": 0}, ValueError, "channels must be at least 1, got 0"),
        (models.MobileNetV2, {"width_mult": float("inf")}, ValueError, "width_mult must be a factor of channels"),
        (models.UNet, {"width": 2**62}, ValueError, "width must fit in 64 bits"),
        (models.lenet5, {"image_size": 2**62}, ValueError, "16 . image_size must fit in 64 bits"),
        (models.Autoencoder, {"sizes": 5}, TypeError, "sizes must be a sequence of integers, got 5"),
        (models.convnet, {"hidden": 5}, TypeError, "hidden must be a sequence of sizes, got 5"),
        (models.convnet, {"image_size": 2**40}, ValueError, "channels . image_size must fit in 64 bits"),
    ],
)
def test_other_options_are_named(build: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(**options)


@pytest.mark.parametrize(
    "make",
    [lambda: nn.Conv2d(2**62, 64, 7), lambda: nn.Linear(2**62, 3), lambda: nn.BatchNorm2d(2**62),
     lambda: nn.LayerNorm(2**62), lambda: nn.GroupNorm(1, 2**62), lambda: nn.PReLU(2**62)],
)  # fmt: skip
def test_layers_of_more_than_all_addresses_have_no_memory(make: Any) -> None:
    with pytest.raises(MemoryError):
        make()


def test_unet_takes_an_image_without_a_batch(device: str) -> None:
    network, image = models.unet(3, 2, width=2, padding=1).eval(), nnet.tensor(np.ones((2, 16, 32), np.float32))
    with nnet.no_grad():
        one, batch = network(image).cpu().numpy(), network(image[None]).cpu().numpy()
        np.testing.assert_allclose(one, batch[0], rtol=1e-5, atol=1e-6)
