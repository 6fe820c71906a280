"""Peak memory after few and after many training steps: a leak makes the second grow away from the first."""

from __future__ import annotations

import numpy as np


class Soak:
    """Steps of a tiny network; `python -m tests.reliability.soak` is the long form."""

    timeout = 300
    params = (20, 2000)
    param_names = ("steps",)

    def peakmem_steps(self, steps: int) -> None:
        import numbanet as nnet
        from numbanet import functional as F
        from numbanet import nn, optim

        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(36, 3),
        )  # fmt: skip
        optimizer = optim.SGD(model.parameters(), 0.05, momentum=0.9)
        x = nnet.tensor(np.ones((8, 2, 6, 6), np.float32))
        labels = nnet.tensor(np.arange(8) % 3)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
