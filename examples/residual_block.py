"""A layer of your own: a residual block (He et al. 2015, figure 2), trained a little, saved and loaded.

    python examples/residual_block.py
"""

import tempfile
from pathlib import Path

import numpy as np

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), each convolution followed by batch norm."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


def build():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), ResidualBlock(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


def main(epochs=5):
    nnet.manual_seed(0)
    train, test = nnet.data.load_digits(train=True), nnet.data.load_digits(train=False)
    loader = nnet.data.DataLoader(train, batch_size=32, shuffle=True, generator=np.random.default_rng(0))
    model = build()
    nnet.train.fit(model, optim.Adam(model.parameters(), lr=1e-2), loader, epochs=epochs)

    images = nnet.tensor(test.images / np.float32(255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.safetensors"
        nnet.io.save_model(model, path)
        copy = build()
        nnet.io.load_model(copy, path)
    with nnet.no_grad():
        same = np.array_equal(model.eval()(images).numpy(), copy.eval()(images).numpy())
    print(f"the loaded model gives the same scores, bit for bit: {same}")
    return same


if __name__ == "__main__":
    main()
