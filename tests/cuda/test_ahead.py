"""Kernels compiled without a GPU are those that a step on one launches, and are found on disk later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.__main__ import main
from numbanet.cli.warmup import step_ahead
from numbanet.cuda import ahead, launch
from numbanet.cuda.compile import STORE
from tests.cuda.ptx.executor import HostDevice


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1, device="cpu"), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4, device="cpu")
    )  # fmt: skip


def test_a_step_launches_what_was_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    compiler = ahead.Compiler((8, 0))
    step_ahead(compiler, network(), (2, 3, 2, 2), "float32", "float32")
    assert STORE.count(".cubin") == len(compiler.kernels)
    device = HostDevice()
    with launch.executor(device):
        model = network().cuda()
        optimizer = optim.SGD(model.parameters(), momentum=0.9, weight_decay=1e-4)
        images = nnet.tensor(np.ones((2, 3, 2, 2), np.float32), device="cuda")
        F.cross_entropy(model(images), nnet.tensor([1, 3], device="cuda")).backward()
        optimizer.step()
    assert set(device.launched) <= {kernel.name for kernel, _ in compiler.kernels} and len(device.launched) > 5
    monkeypatch.setattr("numbanet.cuda.ptx.compiler.linked", None)  # nothing is compiled any more
    for (kernel, dtype), code in compiler.kernels.items():
        kernel._cubin.clear()
        assert kernel.cubin(dtype, (8, 0)) == code


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("numbanet.models.get", lambda name, **options: network())
    monkeypatch.setattr("numbanet.cli.warmup.step_ahead", lambda compiler, *rest: step_ahead_small(compiler))
    words = ["warmup", "--device", "cuda", "--arch", "80", "--models", "resnet18", "--quiet"]
    for expected in ("1 kernels in {}: 1 compiled, 0 there", "1 kernels in {}: 0 compiled, 1 there"):
        assert main(words) == 0
        assert expected.format(STORE.folder()) in capsys.readouterr().out
    assert main([*words[:3], "--arch", "fast"]) == 1
    assert "arch must be a compute capability of 80 or more" in capsys.readouterr().err


def step_ahead_small(compiler: ahead.Compiler) -> None:
    assert compiler.capability == (8, 0)
    with launch.executor(compiler):
        nnet.tensor([1.0], device="cuda") * 2.0


def test_words_of_capabilities() -> None:
    assert ahead.parse("90") == ahead.parse("sm_90a") == (9, 0, "a") and ahead.parse("sm_80") == (8, 0)
    assert ahead.parse("120") == (12, 0)
    for word in ("", "9.0", "75", "hopper"):
        with pytest.raises(ValueError, match="arch must be a compute capability of 80 or more"):
            ahead.parse(word)
