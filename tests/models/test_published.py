"""Every architecture against published numbers: parameters, multiply-adds, and the names and shapes of its state.

Sources. Parameters, multiply-adds (in thousand millions, of convolutions and linear layers, one image of 224 x 224
pixels) and state dictionaries: torchvision 0.28, ``num_params`` and ``_ops`` of each model's weights, and the first 16
digits of the SHA-256 of its lines "name shape", in order.

The papers give rounded numbers of the same. VGG, table 2: 133, 133, 138 and 144 million parameters. ResNet, table 1:
1.8, 3.6, 3.8, 7.6 and 11.3 thousand million multiply-adds (torchvision's bottlenecks have their stride in the 3 x 3
convolution, which takes a little more). MobileNet v2, table 4: 3.4 million parameters, 300 million multiply-adds.
GoogLeNet without its auxiliary heads, table 1: 6.8 million parameters, with 5 x 5 filters where torchvision has 3 x 3.
The All-Convolutional Net, table 3: 1.4 million parameters. ShuffleNet v2, table 5: 2.3 million parameters, 146 million
multiply-adds. ZFNet and U-Net give sizes of images (figures 3 and 1), and no counts.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import models, nn
from numbanet.models.googlenet import _renormalised

TORCHVISION = {
    "alexnet": (61_100_840, 0.714, "9c198ebdae1863e4"),
    "densenet121": (7_978_856, 2.834, "aa0fd9923b0003b8"),
    "googlenet": (13_004_888, 1.498, "7f541ca29410efb1"),
    "mobilenet_v2": (3_504_872, 0.301, "37bbbce8932fd0c4"),
    "resnet18": (11_689_512, 1.814, "84fb10d9c6905a1c"),
    "resnet34": (21_797_672, 3.664, "28f9096d51307499"),
    "resnet50": (25_557_032, 4.089, "d7e4f8bb0a536344"),
    "resnet101": (44_549_160, 7.801, "02c0f34f4842751f"),
    "resnet152": (60_192_808, 11.514, "685c66205bc823aa"),
    "resnext50_32x4d": (25_028_904, 4.23, "e3bad165c034e60f"),
    "shufflenet_v2_x1_0": (2_278_604, 0.145, "81b349bc1cbbbc7a"),
    "squeezenet1_0": (1_248_424, 0.819, "4654d26ad581241f"),
    "squeezenet1_1": (1_235_496, 0.349, "1d365589393f9c1e"),
    "vgg11": (132_863_336, 7.609, "cb3dc23f2a13e182"),
    "vgg11_bn": (132_868_840, 7.609, "8b6717e727c0ecf9"),
    "vgg13": (133_047_848, 11.308, "67c1dc8b57fde74b"),
    "vgg13_bn": (133_053_736, 11.308, "f6b0597d18a7e4d2"),
    "vgg16": (138_357_544, 15.47, "35c4623e0cd4a39d"),
    "vgg16_bn": (138_365_992, 15.47, "347371586a8ea365"),
    "vgg19": (143_667_240, 19.632, "4723255af8f6c485"),
    "vgg19_bn": (143_678_248, 19.632, "fc3ff6fab2b5cc09"),
}

S = (784, 1000, 500, 250, 30)  # the autoencoder of the paper


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


def convolutions(*layers: tuple[int, int, int, int]) -> int:
    """Multiply-adds of convolutions: channels, filters, size of the filters, size of the result."""
    return sum(c * k * r * r * p * p for c, k, r, p in layers)


def all_cnn_c() -> int:
    wide = [(3, 96, 3, 32), (96, 96, 3, 32), (96, 96, 3, 16), (96, 192, 3, 16), (192, 192, 3, 16), (192, 192, 3, 8)]
    return convolutions(*wide, (192, 192, 3, 6), (192, 192, 1, 6), (192, 10, 1, 6))


def residual(n: int) -> int:
    stages = [(16, 16, 32), (16, 32, 16), (32, 64, 8)]
    blocks = [(c, k, 3, p) for c, k, p in stages] + [(k, k, 3, p) for _, k, p in stages] * (2 * n - 1)
    return convolutions((3, 16, 3, 32), *blocks) + 64 * 10


def zfnet() -> int:
    layers = [(3, 96, 7, 110), (96, 256, 5, 26), (256, 384, 3, 13), (384, 384, 3, 13), (384, 256, 3, 13)]
    return convolutions(*layers) + 256 * 6 * 6 * 4096 + 4096 * 4096 + 4096 * 1000


def unet() -> int:
    widths, left, right = [64, 128, 256, 512, 1024], [570, 282, 138, 66, 30], [54, 102, 198, 390]
    down = [layer for c, k, p in zip([1, *widths], widths, left) for layer in ((c, k, 3, p), (k, k, 3, p - 2))]
    up = [
        layer  # a transposed 2 x 2 convolution multiplies each pixel of the smaller image by 4 weights
        for k, p in zip(widths[3::-1], right)
        for layer in ((2 * k, k, 2, p // 2 + 1), (2 * k, k, 3, p), (k, k, 3, p - 2))
    ]
    return convolutions(*down, *up, (64, 2, 1, 388))


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("all_cnn", (3, 32, 32), all_cnn_c()),  # the paper's tables 1 and 2
        ("autoencoder", (1, 28, 28), 2 * sum(a * b for a, b in zip(S, S[1:]))),
        ("lenet5", (1, 28, 28), convolutions((1, 6, 5, 28), (6, 16, 5, 10)) + 400 * 120 + 120 * 84 + 84 * 10),
        ("resnet20", (3, 32, 32), residual(3)),  # the paper's section 4.2
        ("resnet56", (3, 32, 32), residual(9)),
        ("unet", (1, 572, 572), unet()),  # the sizes in the paper's figure 1
        ("zfnet", (3, 224, 224), zfnet()),  # the sizes in the paper's figure 3
    ],
)
def test_multiply_adds_follow_from_the_papers_tables(name: str, shape: tuple[int, ...], count: int) -> None:
    with nn.init.skipped():
        assert multiply_adds(getattr(models, name)(), shape) == count


def test_googlenet_without_auxiliary_heads(device: str) -> None:
    with nn.init.skipped():
        plain = models.googlenet(aux_logits=False)
    assert parameters(plain) == 6_624_904
    heads = models.googlenet(4).train()(nnet.tensor(np.zeros((2, 3, 64, 64), np.float32)))
    assert [scores.shape for scores in heads] == [(2, 4)] * 3
    assert not isinstance(plain.train()(nnet.tensor(np.zeros((2, 3, 64, 64), np.float32))), tuple)


def test_googlenet_renormalises_images(device: str) -> None:
    image = np.random.default_rng(0).random((2, 3, 4, 4), np.float32)
    mean, deviation = (np.float32(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = _renormalised(nnet.tensor((image - mean) / deviation)).cpu().numpy()
    np.testing.assert_allclose(found, (image - 0.5) / 0.5, atol=1e-6)


def test_all_convolutional_net() -> None:
    model = models.all_cnn()
    assert parameters(model) == 1_369_738
    sizes = [layer.output_shape[2] for layer in nn.summary(model, (3, 32, 32)).layers if layer.kind == "Conv2d"]
    assert sizes == [32, 32, 16, 16, 16, 8, 6, 6, 6]  # the paper's table 2
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.2, 0.5, 0.5]


def test_fcn(device: str) -> None:
    with nn.init.skipped():
        model, plain = models.fcn_resnet50(aux_loss=True), models.fcn_resnet50(3)
    assert parameters(model) == 35_322_218 and digest(model) == "1092973e1eb9477c"
    with nn.init.skipped():
        counted = multiply_adds(models.fcn_resnet50(aux_loss=True), (3, 520, 520))
    assert counted / 1e9 == pytest.approx(152.717, abs=6e-4)
    images = nnet.tensor(np.zeros((1, 3, 40, 33), np.float32))
    with nnet.no_grad():
        scores = plain.eval()(images)
    assert list(scores) == ["out"] and scores["out"].shape == (1, 3, 40, 33)


def test_zfnet() -> None:
    with nn.init.skipped():
        model = models.zfnet()
    convs = [(3, 96, 7), (96, 256, 5), (256, 384, 3), (384, 384, 3), (384, 256, 3)]
    linears = [(256 * 6 * 6, 4096), (4096, 4096), (4096, 1000)]
    assert parameters(model) == sum(c * k * r * r + k for c, k, r in convs) + sum(c * k + k for c, k in linears)
    layers = nn.summary(model, (3, 224, 224)).layers
    sizes = [layer.output_shape[2] for layer in layers if layer.kind in ("Conv2d", "MaxPool2d")]
    assert sizes == [110, 55, 26, 13, 13, 13, 13, 6]  # the paper's figure 3


def test_unet(device: str) -> None:
    model = models.unet()
    widths = [1, 64, 128, 256, 512, 1024]
    double = sum(9 * c * k + k + 9 * k * k + k for c, k in zip(widths, widths[1:]))
    up = sum(4 * c * k + k + 9 * c * k + k + 9 * k * k + k for k, c in zip(widths[1:], widths[2:]))
    assert parameters(model) == double + up + 64 * 2 + 2 == 31_030_658
    # The paper's figure 1: 572 pixels become 388; here 188, which is the least, become 4.
    small = nn.summary(models.unet(width=2), (1, 188, 188))
    sizes = [layer.output_shape[2] for layer in small.layers if layer.kind in ("Conv2d", "ConvTranspose2d")]
    assert sizes == [186, 184, 90, 88, 42, 40, 18, 16, 6, 4, 8, 6, 4, 8, 6, 4, 8, 6, 4, 8, 6, 4, 4]
    padded = models.unet(3, 2, width=2, padding=1)
    assert padded(nnet.tensor(np.zeros((1, 2, 32, 48), np.float32))).shape == (1, 3, 32, 48)


def test_autoencoder(device: str) -> None:
    model = models.autoencoder()
    assert parameters(model) == sum(a * b + b for a, b in zip(S, S[1:])) + sum(a * b + a for a, b in zip(S, S[1:]))
    images = nnet.tensor(np.zeros((2, 1, 28, 28), np.float32))
    assert model.encoder(images.flatten(1)).shape == (2, 30) and model(images).shape == (2, 1, 28, 28)
    with pytest.raises(ValueError, match="sizes must hold the pixels of an image and one layer at least, got"):
        models.autoencoder((784,))


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "resnext50_32x4d", "squeezenet1_1"])
def test_classes_channels_and_generator(device: str, name: str) -> None:
    model = models.get(name, 3, 2, generator=np.random.default_rng(0)).eval()
    with nnet.no_grad():
        assert model(nnet.tensor(np.zeros((1, 2, 70, 66), np.float32))).shape == (1, 3)
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


def test_width_of_mobilenet() -> None:
    """Channels are multiples of 8, and the last layer never narrower than 1280."""
    model = models.mobilenet_v2(width_mult=0.35)
    assert [model.features[k].conv[-2].out_channels for k in (1, 2, 4, 7, 11, 14, 17)] == [8, 8, 16, 24, 32, 56, 112]
    assert model.features[18][0].out_channels == 1280


def test_errors() -> None:
    with pytest.raises(ValueError, match="version must be one of '1_0', '1_1', got '2'"):
        models.squeezenet.SqueezeNet("2")
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


def test_torchvisions_resnets_of_other_blocks() -> None:
    class Squeezed(models.resnet.BasicBlock):
        expansion = 1

    def block(*arguments: Any) -> Any:
        return Squeezed(*arguments)

    block.expansion = 1  # type: ignore[attr-defined]
    nets = [models.ResNet(kind, [1, 0, 1, 1], 10, replace_stride_with_dilation=None) for kind in (Squeezed, block)]
    assert [len(net.layer2) for net in nets] == [1, 1]
