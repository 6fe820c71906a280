"""What docs/networks.md does with a checkpoint of torchvision, in PyTorch and here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import numbanet as nnet
from tests.parity import torchvision_models

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


def test_a_checkpoint_of_torchvision_loads_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = torchvision_models.load().resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), "resnet18.pth")
    with pytest.raises(ValueError, match="resnet18.pth: not a safetensors file but a pickle"):
        nnet.io.load_model(nnet.models.get("resnet18"), "resnet18.pth")
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(compile(code, PAGE.name, "exec"), {})
    ours = nnet.models.get("resnet18").eval()
    nnet.io.load_model(ours, "resnet18.safetensors")
    images = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    with torch.no_grad(), nnet.no_grad():
        expected, found = theirs(torch.from_numpy(images)).numpy(), ours(nnet.tensor(images)).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_loader_of_torch_serves_fit() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((40, 1, 6, 6), np.float32)
    labels = rng.integers(2, size=40)
    pixels[labels == 1] += 1
    set_ = torch.utils.data.TensorDataset(torch.from_numpy(pixels), torch.from_numpy(labels))
    loader = torch.utils.data.DataLoader(set_, batch_size=10, shuffle=True)
    nnet.manual_seed(0)
    torch.manual_seed(0)
    model = nnet.nn.Sequential(nnet.nn.Flatten(), nnet.nn.Linear(36, 2))
    optimizer = nnet.optim.Adam(model.parameters(), 0.05)
    history = nnet.train.fit(model, optimizer, loader, loader, epochs=40, progress="off")
    assert history[-1].test_accuracy > 0.9
