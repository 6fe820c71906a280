"""The digits network learns the bundled digits in a few epochs."""

from __future__ import annotations

import numpy as np

import numbanet as nnet
from numbanet import data, models, optim
from numbanet import functional as F


def test_digits_network_learns_the_digits(device: str) -> None:
    generator = np.random.default_rng(0)
    images, test = data.load_digits(train=True), data.load_digits(train=False)
    model = models.get("digits", generator=generator)
    loader = data.DataLoader(images, 32, shuffle=True, generator=generator, workers=0)
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=6 * len(loader))
    for _ in range(6):
        for batch, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(nnet.tensor(batch)), nnet.tensor(labels)).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with nnet.no_grad():
        scores = model(nnet.tensor(test.images.astype(np.float32) / 255))
    assert np.mean(scores.cpu().numpy().argmax(1) == test.labels) >= 0.98
