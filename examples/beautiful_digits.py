"""The whole story in one file: a ConvNet, its data, the training loop, and the accuracy on images it has not seen.

    python examples/beautiful_digits.py
"""

import numpy as np

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.head = nn.Linear(64 * 2 * 2, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)  # (N, 32, 4, 4)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)  # (N, 64, 2, 2)
        return self.head(x.flatten(1))


def accuracy(model, dataset):
    model.eval()
    with nnet.no_grad():
        scores = model(nnet.tensor(dataset.images / np.float32(255)))
    return float((scores.numpy().argmax(1) == dataset.labels).mean())


def main(epochs=10):
    nnet.manual_seed(0)
    train, test = nnet.data.load_digits(train=True), nnet.data.load_digits(train=False)
    loader = nnet.data.DataLoader(train, batch_size=32, shuffle=True, generator=np.random.default_rng(0))
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        model.train()
        for images, labels in loader:
            loss = F.cross_entropy(model(nnet.tensor(images)), nnet.tensor(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1:2}  loss {loss.item():.4f}  test accuracy {accuracy(model, test):.2%}")
    return accuracy(model, test)


if __name__ == "__main__":
    main()
