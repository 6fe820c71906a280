"""Weights travel between PyTorch and numbanet in safetensors files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from numbanet import io, nn, tensor


def networks() -> tuple[torch.nn.Module, nn.Module]:
    """The same network twice, with different weights, both in evaluation mode."""
    torch.manual_seed(0)
    pair = []
    for kit in (torch.nn, nn):
        layers = kit.Conv2d(3, 8, 3, padding=1), kit.BatchNorm2d(8), kit.ReLU(), kit.Flatten(), kit.Linear(8 * 36, 5)
        pair.append(kit.Sequential(*layers))
    theirs, ours = pair
    theirs(torch.randn(7, 3, 6, 6))  # running statistics that are not those of the start
    return theirs.eval(), ours.eval()


def same_output(theirs: torch.nn.Module, ours: nn.Module) -> None:
    x = np.random.default_rng(1).standard_normal((4, 3, 6, 6)).astype(np.float32)
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(tensor(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_file_of_torch_loads_unchanged(tmp_path: Path) -> None:
    theirs, ours = networks()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    io.load_model(ours, tmp_path / "model.safetensors")
    same_output(theirs, ours)


def test_torch_loads_our_file(tmp_path: Path) -> None:
    theirs, ours = networks()
    io.save_model(ours, tmp_path / "model.safetensors")
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"))
    same_output(theirs, ours)
