"""One-dimensional and transposed convolution against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from torch import nn as tnn

from numbanet import functional as F
from numbanet import nn
from tests.parity.agreement import agree

OPTIONS = {
    "stride": [1, 2, (2, 3), 0], "padding": [0, (1, 2), 3, -1], "output_padding": [0, 1, (2, 1)], "groups": [1, 2, 3],
    "dilation": [1, 2, (3, 1)],
}  # fmt: skip


def test_transposed(rng):
    x = rng.standard_normal((2, 4, 3, 4))
    weight, bias = rng.standard_normal((4, 2, 3, 2)), rng.standard_normal(2)
    answered = 0
    for a, b in itertools.combinations(OPTIONS, 2):
        for first, second in itertools.product(OPTIONS[a], OPTIONS[b]):
            options = {a: first, b: second}
            offset = rng.standard_normal(2 * options.get("groups", 1)) if options.get("groups") else bias
            answered += agree(F.conv_transpose2d, TF.conv_transpose2d, [x, weight, offset], **options)
    assert answered > 50
    for arrays in [(x[0], weight, None), (x[:0], weight, bias), (x, weight[:3], None), (x, weight, bias[:1])]:
        agree(F.conv_transpose2d, TF.conv_transpose2d, arrays, stride=2)


def test_conv1d(rng):
    x, bias = rng.standard_normal((2, 4, 9)), rng.standard_normal(4)
    for stride, padding, dilation, groups in itertools.product(
        [1, (2,)], [0, 2, (1,), "same", "valid"], [1, 3], [1, 2, 3]
    ):
        weight = rng.standard_normal((4, 4 // groups, 3))
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        agree(F.conv1d, TF.conv1d, [x, weight, bias], **options)
        agree(F.conv1d, TF.conv1d, [x[0], weight, None], **options)
    for shape in [(9,), (2, 3, 9), (2, 4, 2), (0, 4, 9), (1, 2, 4, 9)]:
        agree(F.conv1d, TF.conv1d, [rng.standard_normal(shape), rng.standard_normal((4, 4, 3)), bias])


@pytest.mark.parametrize(
    ("name", "arguments", "options", "shape"),
    [("Conv1d", (4, 6, 3), {"padding": "same", "groups": 2}, (2, 4, 8)),
     ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 2, "padding_mode": "reflect", "bias": False}, (2, 4, 8)),
     ("Conv1d", (4, 6, 2), {"dilation": 3, "padding": 1, "padding_mode": "circular"}, (4, 8)),
     ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, (2, 4, 5, 5)),
     ("ConvTranspose2d", (4, 2, (1, 2)), {"dilation": 2, "bias": False}, (4, 3, 2))],
)  # fmt: skip
def test_layers(name, arguments, options, shape, rng):
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(tnn, name)(*arguments, **options)
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict({key: torch.tensor(value.copy()) for key, value in ours.state_dict().items()})
    agree(ours, theirs, [rng.standard_normal(shape).astype(np.float32)], tolerance=2e-6)


def test_output_size(rng):
    ours, theirs = nn.ConvTranspose2d(2, 3, 3, 2, 1, bias=False), tnn.ConvTranspose2d(2, 3, 3, 2, 1, bias=False)
    theirs.load_state_dict({key: torch.tensor(value.copy()) for key, value in ours.state_dict().items()})
    for size in [(7, 8), (8, 8), (9, 7), (6, 7), (1, 3, 8, 7), (8,)]:
        agree(ours, theirs, [rng.standard_normal((1, 2, 4, 4)).astype(np.float32)], size, tolerance=2e-6)
