"""The networks against torchvision's, with equal weights: scores in float32, a training step's gradients in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tnn

import numbanet as nnet
from numbanet import functional as F
from numbanet import models, nn
from tests.parity import torchvision_models

torchvision = torchvision_models.load()

NAMES = (
    "alexnet", "densenet121", "googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn",
    "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
)  # fmt: skip
SIZE = 64


def small(model: Any, layers: Any) -> Any:
    """The same network with two classes and, in VGG and AlexNet, hidden layers of 8: a test needs no 100 M weights."""
    if isinstance(getattr(model, "classifier", None), layers.Sequential):
        linear = [k for k, layer in enumerate(model.classifier) if isinstance(layer, layers.Linear)]
        sizes = linear and [model.classifier[linear[0]].in_features, *[8] * (len(linear) - 1), 2]
        for k, taken, given in zip(linear, sizes, sizes[1:]):
            model.classifier[k] = layers.Linear(taken, given)
    for module in model.modules():
        if isinstance(module, layers.Dropout):
            module.p = 0.0
    return model


def twins(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    options = {"init_weights": True} if name == "googlenet" else {}
    theirs = small(getattr(torchvision, name)(num_classes=2, **options), tnn)
    for module in theirs.modules():  # running statistics that are no zeros and ones
        if isinstance(module, tnn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    with nn.init.skipped():
        ours = small(models.get(name, 2), nn)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def heads(scores: Any) -> Any:
    return scores if isinstance(scores, tuple) else (scores,)


def batch() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)), np.array([0, 1])


def compare_gradients(ours: Any, theirs: Any) -> None:
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for key, parameter in ours.named_parameters():
        # A bias before batch norm has gradient zero, but for rounding.
        atol = 1e-6 * np.abs(gradients[key]).max() + 1e-12 * largest
        np.testing.assert_allclose(parameter.grad.data, gradients[key], rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_scores(name: str) -> None:
    ours, theirs = twins(name)
    ours.eval(), theirs.eval()
    x = batch()[0].astype(np.float32)
    with nnet.no_grad(), torch.no_grad():
        scores, expected = ours(nnet.tensor(x)).data, theirs(torch.tensor(x)).numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_training_step(name: str) -> None:
    ours, theirs = twins(name)
    ours, theirs = ours.double(), theirs.double()
    x, labels = batch()
    loss = sum(F.cross_entropy(scores, nnet.tensor(labels)) for scores in heads(ours(nnet.tensor(x))))
    other = torch.tensor(labels)
    expected = sum(tnn.functional.cross_entropy(scores, other) for scores in heads(theirs(torch.tensor(x))))
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    compare_gradients(ours, theirs)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-8, atol=1e-10, err_msg=key)


def settings(model: Any) -> list[tuple[Any, ...]]:
    """What no weight shows, layer by layer: rates of dropout, numbers of batch norm, and the kinds of both."""
    found: list[tuple[Any, ...]] = []
    for layer in model.modules():
        if type(layer).__name__ == "Dropout":
            found.append(("Dropout", layer.p))
        if type(layer).__name__ == "BatchNorm2d":
            found.append(("BatchNorm2d", layer.eps, layer.momentum, layer.track_running_stats))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_settings(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision, name)(**({"init_weights": False} if name == "googlenet" else {}))
    with nn.init.skipped():
        assert settings(models.get(name)) == settings(theirs)


def test_settings_of_segmentation() -> None:
    with torch.device("meta"):
        theirs = torchvision.segmentation.fcn_resnet50(weights_backbone=None, aux_loss=True)
    with nn.init.skipped():
        assert settings(models.fcn_resnet50(aux_loss=True)) == settings(theirs)


INITIAL = (
    "densenet121", "googlenet", "mobilenet_v2", "resnet18", "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_1",
)  # fmt: skip


@pytest.mark.parametrize("name", INITIAL)
def test_initial_values(name: str) -> None:
    """Drawn from the same distributions: equal deviations and extents; constants are the same constants."""
    torch.manual_seed(0)
    options = {"init_weights": True} if name == "googlenet" else {}
    theirs = dict(getattr(torchvision, name)(**options).named_parameters())
    ours = models.get(name, generator=np.random.default_rng(0))
    compared = 0
    for key, parameter in ours.named_parameters():
        values, other = parameter.data, theirs[key].detach().numpy()
        if other.min() == other.max():
            assert values.min() == values.max() == other.min(), key
        elif other.size >= 4096:
            compared += 1
            assert values.std() == pytest.approx(other.std(), rel=0.07), key
            # The largest of many: of a uniform distribution its end, of a normal one some deviations.
            assert np.abs(values).max() == pytest.approx(np.abs(other).max(), rel=0.35), key
    assert compared > 5


def test_segmentation_in_training() -> None:
    torch.manual_seed(0)
    theirs = torchvision.segmentation.fcn_resnet50(weights_backbone=None, num_classes=2, aux_loss=True).double()
    theirs.classifier[3].p = theirs.aux_classifier[3].p = 0.0
    with nn.init.skipped():
        ours = models.fcn_resnet50(2, aux_loss=True)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    ours = ours.double()
    ours.classifier[3].p = ours.aux_classifier[3].p = 0.0
    x = np.random.default_rng(0).standard_normal((2, 3, 40, 33))
    scores, expected = ours(nnet.tensor(x)), theirs(torch.tensor(x))
    assert list(scores) == list(expected) == ["out", "aux"]
    for name in scores:
        np.testing.assert_allclose(scores[name].data, expected[name].detach().numpy(), rtol=0, atol=1e-8)
    sum((scores[name] ** 2).mean() for name in scores).backward()
    sum((expected[name] ** 2).mean() for name in expected).backward()
    compare_gradients(ours, theirs)


def test_files_without_counters_of_batches_load() -> None:
    """Many of torchvision's files are older than ``num_batches_tracked``; torch loads them, and so do we."""
    theirs = torchvision.resnet18(num_classes=2).state_dict()
    old = {key: value for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    with nn.init.skipped():
        found = models.resnet18(2).load_state_dict(old)
    assert found == ([], [])
    torchvision.resnet18(num_classes=2).load_state_dict(dict(old))
