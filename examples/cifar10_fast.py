"""CIFAR-10 in 9.9 epochs: a small network and a recipe in which everything serves speed.

    python examples/cifar10_fast.py --data datasets --out runs/cifar10-fast

Network, augmentation and hyper-parameters are those of airbench94 (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
GPU", 2024). log.json gets each epoch's accuracy, without and with test-time augmentation, and the seconds of training.
A run that was cut short goes on when the command is given again, and comes to the same bits as any other.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

import numbanet as nnet
from numbanet import data, io, nn, optim
from numbanet import functional as F

LR, MOMENTUM, WEIGHT_DECAY = 11.5, 0.85, 0.0153  # for 1024 images; neither of the others changes the length of a step
NORM_BIAS_LR = 64  # how much faster the biases of the batch norms learn
WHITEN_BIAS_EPOCHS = 3  # then the bias of the whitening layer is frozen
LOOKAHEAD_EVERY = SAVE_EVERY = 5  # steps
PARTS = ("model", "optimizer", "schedule", "loader")  # whose states are saved
normalize = data.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def conv(channels_in, channels_out):
    """A 3 x 3 convolution that begins by passing its input on, in as many channels as there are."""
    layer = nn.Conv2d(channels_in, channels_out, 3, padding="same", bias=False)
    nn.init.dirac_(nnet.Tensor(layer.weight.data[:channels_in]))
    return layer


def norm(channels):
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


class Block(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv1, self.norm1 = conv(channels_in, channels_out), norm(channels_out)
        self.conv2, self.norm2 = conv(channels_out, channels_out), norm(channels_out)

    def forward(self, x):
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Net(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        self.blocks = nn.Sequential(*(Block(c, k) for c, k in zip((24, *widths), widths)))
        self.head = nn.Linear(widths[-1], 10, bias=False)

    def forward(self, x):
        return self.head(F.max_pool2d(self.blocks(F.gelu(self.whiten(x))), 3).flatten(1)) / 9


def whitening_filters(images, eps=5e-4):
    """The filters that make the 2 x 2 patches of images uncorrelated with variance 1, strongest first; and negated."""
    patches = np.lib.stride_tricks.sliding_window_view(normalize(images, None), (2, 2), (2, 3))
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    variances, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    filters = (directions / np.sqrt(variances + eps)).T[::-1].reshape(12, 3, 2, 2)
    return np.concatenate([filters, -filters])


def follow(slow, model, decay):
    """Replace weights by slow ones, which follow them, and return those (Zhang et al., "Lookahead Optimizer", 2019)."""
    fast = model.state_dict()
    slow = {name: value + (1 - decay) * (fast[name] - value) for name, value in slow.items()}
    model.load_state_dict(slow, strict=False)
    return slow


def make_optimizer(model, batch, kind=optim.SGD):
    scale = 1024 * (1 + 1 / (1 - MOMENTUM))  # how much longer Nesterov's steps are than the gradients of single images
    lr, decay = LR / scale, WEIGHT_DECAY * batch / scale
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    norms, others = [p for name, p in trained if "norm" in name], [p for name, p in trained if "norm" not in name]
    groups = [{"params": norms, "lr": NORM_BIAS_LR * lr}, {"params": others, "lr": lr}]
    for group in groups:
        group["weight_decay"] = decay / group["lr"]  # the learning rate does not change what decays
    return kind(groups, momentum=MOMENTUM, nesterov=True)


def evaluate(model, dataset):
    """Return the accuracy without and with test-time augmentation: images moved by a pixel, two ways, and mirrored."""
    model.eval()
    right = np.zeros(2)
    for images, labels in data.DataLoader(dataset, 500, augment=normalize):
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
        moved = images, padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]
        with nnet.no_grad():
            scores = [model(nnet.tensor(view)).numpy() for m in moved for view in (m, m[..., ::-1])]
        scores.append(np.average(scores, axis=0, weights=[2, 2, 1, 1, 1, 1]))
        right += [(scores[i].argmax(1) == labels).sum() for i in (0, -1)]
    return (right / len(dataset)).tolist()


class Training:
    """A training, and all of its state: it goes on where the checkpoint in its folder was written."""

    def __init__(self, train, test, out, epochs=9.9, seed=0, batch=1024, widths=(64, 256, 256)):
        nnet.manual_seed(seed)
        self.out, self.test, self.settings = Path(out), test, {"epochs": epochs, "seed": seed, "batch": batch}
        # Half of the images are mirrored once and for all, and every second epoch mirrors all: both sides come in turn.
        flipped = data.RandomHorizontalFlip()(train.images, np.random.default_rng([seed, 1]))
        alternate = lambda images, rng: images[..., ::-1] if self.loader.epoch % 2 else images  # noqa: E731
        self.loader = data.DataLoader(
            data.Dataset(flipped, train.labels, train.classes), batch, shuffle=True, drop_last=True,
            generator=np.random.default_rng(seed), augment=[alternate, data.RandomShift(2, "reflect"), normalize],
        )  # fmt: skip
        self.model = Net(widths)
        whiten = {"whiten.weight": whitening_filters(train.images[:5000]), "whiten.bias": np.zeros(24)}
        self.model.load_state_dict(whiten, strict=False)
        self.slow = {name: value.copy() for name, value in self.model.state_dict().items() if value.dtype.kind == "f"}
        self.optimizer, self.steps = make_optimizer(self.model, batch), math.ceil(len(self.loader) * epochs)
        corners = [0, int(0.23 * self.steps), self.steps], [0.2, 1, 0.07]  # of the learning rate
        self.schedule = optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: float(np.interp(step, *corners)))
        self.progress = {"step": 0, "seconds": 0.0, "cpu_seconds": 0.0}
        self.rows, self.checkpoint = [], self.out / "last.safetensors"
        if self.checkpoint.exists():
            self.load()

    def save(self):
        state = {name: getattr(self, name).state_dict() for name in PARTS}
        log = {"settings": self.settings, "rows": self.rows}
        io.save_state(self.checkpoint, {**state, "slow": self.slow, "progress": self.progress, "log": log})
        io.write_atomically(self.out / "log.json", json.dumps(log, indent=1).encode())

    def load(self):
        state = io.load_state(self.checkpoint)
        if state["log"]["settings"] != self.settings:
            raise ValueError(f"{self.out} holds a training with {state['log']['settings']}, not {self.settings}")
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.slow, self.progress, self.rows = state["slow"], state["progress"], state["log"]["rows"]

    def loss(self, images, labels):
        return F.cross_entropy(self.model(images), labels, label_smoothing=0.2, reduction="sum")

    def step(self, images, labels):
        """Train on a batch; return the mean loss."""
        loss = self.loss(images, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.progress["step"] = step = self.progress["step"] + 1
        if step % LOOKAHEAD_EVERY == 0 or step == self.steps:
            self.slow = follow(self.slow, self.model, 0.95**5 * (step / self.steps) ** 3 if step < self.steps else 1)
        return loss.item() / len(labels)

    def epoch(self):
        """Train for an epoch, or what is left of it, and evaluate."""
        self.model.train()
        self.model.whiten.bias.requires_grad = self.loader.epoch < WHITEN_BIAS_EPOCHS
        began = time.perf_counter(), time.process_time()
        for images, labels in self.loader:
            self.progress["loss"] = self.step(nnet.tensor(images), nnet.tensor(labels))
            self.progress["seconds"] += time.perf_counter() - began[0]
            self.progress["cpu_seconds"] += time.process_time() - began[1]
            if self.progress["step"] == self.steps:
                break
            if self.progress["step"] % SAVE_EVERY == 0:
                self.save()
            began = time.perf_counter(), time.process_time()
        found = dict(zip(("accuracy", "tta_accuracy"), evaluate(self.model, self.test)))
        self.rows.append({"epoch": self.progress["step"] / len(self.loader), **self.progress, **found})
        self.save()

    def run(self):
        while self.progress["step"] < self.steps:
            self.epoch()
            print(json.dumps(self.rows[-1]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="datasets", metavar="DIR", help="folder of CIFAR-10's binary files")
    parser.add_argument("--out", default="runs/cifar10-fast", metavar="DIR", help="folder of checkpoint and log")
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=nnet.get_num_threads())
    args = parser.parse_args()
    nnet.set_num_threads(args.threads)
    Training(data.cifar10(args.data), data.cifar10(args.data, train=False), args.out, args.epochs, args.seed).run()


if __name__ == "__main__":
    main()
