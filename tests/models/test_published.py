"""Every architecture against published numbers: parameters, multiply-adds, and the names and shapes of its state.

Sources. Parameters, multiply-adds (in thousand millions, of convolutions and linear layers, one image of 224 x 224
pixels) and state dictionaries: torchvision 0.28, ``num_params`` and ``_ops`` of each model's weights, and the first 16
digits of the SHA-256 of its lines "name shape", in order. The papers give rounded numbers of the same: VGG, table 2
(133, 133, 138 and 144 million parameters); ResNet, table 1 (1.8, 3.6, 3.8, 7.6 and 11.3 thousand million multiply-adds;
torchvision's bottlenecks have their stride in the 3 x 3 convolution, which takes a little more).
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import numbanet as nnet
from numbanet import models, nn

TORCHVISION = {
    "resnet18": (11_689_512, 1.814, "84fb10d9c6905a1c"),
    "resnet34": (21_797_672, 3.664, "28f9096d51307499"),
    "resnet50": (25_557_032, 4.089, "d7e4f8bb0a536344"),
    "resnet101": (44_549_160, 7.801, "02c0f34f4842751f"),
    "resnet152": (60_192_808, 11.514, "685c66205bc823aa"),
    "resnext50_32x4d": (25_028_904, 4.23, "e3bad165c034e60f"),
    "vgg11": (132_863_336, 7.609, "cb3dc23f2a13e182"),
    "vgg11_bn": (132_868_840, 7.609, "8b6717e727c0ecf9"),
    "vgg13": (133_047_848, 11.308, "67c1dc8b57fde74b"),
    "vgg13_bn": (133_053_736, 11.308, "f6b0597d18a7e4d2"),
    "vgg16": (138_357_544, 15.47, "35c4623e0cd4a39d"),
    "vgg16_bn": (138_365_992, 15.47, "347371586a8ea365"),
    "vgg19": (143_667_240, 19.632, "4723255af8f6c485"),
    "vgg19_bn": (143_678_248, 19.632, "fc3ff6fab2b5cc09"),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Of convolutions and linear layers: the convention of the published numbers."""
    layers = nn.summary(model, shape).layers
    return sum(layer.multiply_adds for layer in layers if not layer.kind.startswith("BatchNorm"))


def digest(model: nn.Module) -> str:
    lines = [f"{name} {array.shape}" for name, array in model.state_dict().items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", TORCHVISION)
def test_counts_and_names_are_those_of_torchvision(name: str) -> None:
    count, giga, names = TORCHVISION[name]
    with nn.init.skipped():
        model = models.get(name)
    assert parameters(model) == count
    assert digest(model) == names
    assert multiply_adds(model, (3, 224, 224)) / 1e9 == pytest.approx(giga, abs=6e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_classes_channels_and_generator(name: str) -> None:
    model = models.get(name, 3, 2, generator=np.random.default_rng(0)).eval()
    with nnet.no_grad():
        assert model(nnet.tensor(np.zeros((1, 2, 70, 65), np.float32))).shape == (1, 3)
    first, second = model.state_dict(), models.get(name, 3, 2, generator=np.random.default_rng(0)).state_dict()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_initial_values_of_a_residual_network() -> None:
    model = models.resnet18(10, zero_init_residual=True, generator=np.random.default_rng(0))
    assert model.layer4[1].conv2.weight.data.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not model.layer4[1].bn2.weight.data.any() and model.layer4[1].bn1.weight.data.all()
    assert np.abs(model.fc.weight.data).max() == pytest.approx(512**-0.5, rel=0.01)


def test_initial_values_of_vgg() -> None:
    model = models.VGG(11, 10, generator=np.random.default_rng(0))
    assert model.features[18].weight.data.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert model.classifier[3].weight.data.std() == pytest.approx(0.01, rel=0.01)
    assert not model.features[0].bias.data.any() and not model.classifier[6].bias.data.any()


def test_dilation_in_place_of_stride_keeps_the_size() -> None:
    model = models.resnet50(5, replace_stride_with_dilation=(False, True, True))
    assert model.layer3[0].conv2.dilation == (1, 1) and model.layer3[1].conv2.dilation == (2, 2)
    assert model.layer4[0].conv2.dilation == (2, 2) and model.layer4[1].conv2.dilation == (4, 4)
    shapes = {layer.name: layer.output_shape for layer in nn.summary(model, (3, 64, 64)).layers}
    assert shapes["layer2.3.conv3"][2:] == shapes["layer4.2.conv3"][2:] == (8, 8)


def test_errors() -> None:
    with pytest.raises(ValueError, match="depth must be one of 11, 13, 16, 19, got 12"):
        models.VGG(12)
    with pytest.raises(ValueError, match="layers must hold the numbers of blocks of four stages, got"):
        models.ResNet(models.resnet.BasicBlock, (1, 2, 3))
    with pytest.raises(ValueError, match="replace_stride_with_dilation must hold three bools"):
        models.resnet50(replace_stride_with_dilation=(True,))
    with pytest.raises(ValueError, match="BasicBlock has groups=1, .* got groups=2"):
        models.resnet18(groups=2)
    with pytest.raises(TypeError, match="depht"):
        models.get("resnet50", depht=3)
