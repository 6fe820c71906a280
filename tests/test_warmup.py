"""Compiling ahead: it leaves nothing out; the notice of slow compilation comes once."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import models, settings
from numbanet.__main__ import main
from numbanet.cli import warmup
from numbanet.cpu import compile as compiler
from numbanet.cpu.activation import CANDIDATES
from numbanet.cpu.compile import Spent, kernels
from tests.processes import run_python


def test_a_training_step_needs_no_kernel_that_warmup_leaves_out() -> None:
    model = models.resnet20()
    optimizer = nnet.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    images = nnet.tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    nnet.functional.cross_entropy(model(images), nnet.tensor(np.array([1, 2]))).backward()
    optimizer.step()
    used = {(kernel, dtype) for kernel in kernels() for dtype in kernel.compiled if dtype == "float32"}
    assert len(used) > 10
    assert used <= set(warmup.plan(["float32"]))


def test_every_kernel_of_the_package_is_planned_for_every_dtype() -> None:
    assert CANDIDATES
    planned = warmup.plan(["float32", "float64"])
    assert len(set(planned)) == len(planned) == 2 * len(kernels()) > 100
    # No kernel is made later, by a call: only those that modules hold can be compiled ahead.
    names = [(kernel.function.__module__, kernel.function.__qualname__) for kernel in kernels()]
    assert len(set(names)) == len(names)


def test_the_command_compiles_and_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first = [kernel for kernel in kernels() if kernel.name.startswith("activation.")][:2]
    monkeypatch.setattr(warmup, "plan", lambda dtypes: [(kernel, dtype) for kernel in first for dtype in dtypes])
    assert main(["warmup", "--dtypes", "float32", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("2 kernels in ") and "there, " in out and err == ""
    assert all("float32" in kernel.compiled for kernel in first)
    assert main(["warmup", "--dtypes", "float32"]) == 0
    assert "2/2" in capsys.readouterr().err


def test_warmup_without_a_cache_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NUMBANET_CACHE", "0")
    assert main(["warmup"]) == 1
    assert "the kernel cache is off" in capsys.readouterr().err


def test_a_step_after_a_warmup_loads_and_compiles_nothing(tmp_path: object) -> None:
    """In new processes, on the kernels of one operation."""
    warm = """
        from numbanet.cli import warmup
        whole = warmup.plan
        warmup.plan = lambda dtypes: [(k, d) for k, d in whole(dtypes) if k.name.startswith("activation.relu")]
        from numbanet.__main__ import main
        assert main(["warmup", "--quiet", "--dtypes", "float32"]) == 0
    """
    use = """
        import sys
        sys.stderr = sys.stdout
        import numpy as np
        from numbanet import ops
        ops.relu(np.ones(5, np.float32))
    """
    environment = {"NUMBANET_CACHE_DIR": str(tmp_path)}
    assert " compiled, 0 there, " in run_python(warm, **environment)
    lines = run_python(use, **environment, NUMBANET_VERBOSE="1")
    assert "loaded activation" in lines and "compiled" not in lines


def test_the_notice_comes_once_and_only_for_pauses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NUMBANET_VERBOSE")
    monkeypatch.setattr(compiler, "Spent", type("Fresh", (Spent,), {"seconds": 0.0, "said": False}))
    spent = compiler.Spent
    spent.add(0.9)
    assert capsys.readouterr().err == ""
    spent.add(0.2)
    spent.add(5.0)
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "numbanet: compiling kernels" in text and "numbanet warmup" in text
    for value in ("0", "1"):
        monkeypatch.setenv("NUMBANET_VERBOSE", value)
        settings.notice("nothing")
        assert capsys.readouterr().err == ""


def test_compiling_is_counted_and_loading_is_not(tmp_path: object) -> None:
    code = """
        import numpy as np
        from numbanet import ops
        from numbanet.cpu.compile import Spent
        ops.relu(np.ones(5, np.float32))
        print(Spent.seconds > 0)
    """
    environment = {"NUMBANET_CACHE_DIR": str(tmp_path)}
    assert [run_python(code, **environment) for _ in range(2)] == ["True", "False"]
