"""Clipping of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.nn.utils import clip_grad_norm_, clip_grad_value_
from numbanet.tensor import Tensor


def with_gradients(*arrays: np.ndarray) -> list[Tensor]:
    tensors = [nnet.tensor(np.zeros_like(a), requires_grad=True) for a in arrays]
    for tensor, array in zip(tensors, arrays):
        tensor.grad = Tensor(array.copy())
    return tensors


@pytest.mark.parametrize("norm_type", [2, 1, 3.0, np.inf])
def test_scales_all_gradients_together(norm_type: float, rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal(shape) for shape in [(), (17,), (3, 4, 5)]]
    together = np.concatenate([a.ravel() for a in arrays])
    expected = np.linalg.norm(together, norm_type)
    tensors = with_gradients(*arrays)
    total = clip_grad_norm_(tensors, 0.5, norm_type)
    assert total.shape == () and total.item() == pytest.approx(expected, rel=1e-12)
    for tensor, array in zip(tensors, arrays):
        np.testing.assert_allclose(tensor.grad.data, array * (0.5 / (expected + 1e-6)), rtol=1e-12)


def test_leaves_small_gradients_alone() -> None:
    (p,) = with_gradients(np.array([3.0, 4.0]))
    assert clip_grad_norm_(p, 6.0).item() == 5.0
    np.testing.assert_array_equal(p.grad.data, [3, 4])


def test_parameters_without_gradient_and_generators() -> None:
    (p,) = with_gradients(np.array([3.0, 4.0], np.float32))
    bare = nnet.tensor([1.0], requires_grad=True)
    total = clip_grad_norm_((t for t in (bare, p)), 1.0)
    assert total.dtype == np.float32 and total.item() == 5.0
    np.testing.assert_allclose(p.grad.data, [0.6, 0.8], rtol=1e-6)
    assert clip_grad_norm_([bare], 1.0).item() == 0.0
    assert clip_grad_norm_([], 1.0).item() == 0.0


def test_what_is_not_finite() -> None:
    (p,) = with_gradients(np.array([np.nan, 4.0]))
    with pytest.raises(RuntimeError, match="norm of order 2.0 of the gradients is nan"):
        clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(p.grad.data, [np.nan, 4])
    assert np.isnan(clip_grad_norm_(p, 1.0).item())
    assert np.isnan(p.grad.data).all()
    (p,) = with_gradients(np.array([np.inf, 4.0]))
    assert clip_grad_norm_(p, 1.0).item() == np.inf
    np.testing.assert_array_equal(p.grad.data, [np.nan, 0])


def test_norm_is_the_same_for_any_number_of_threads(rng: np.random.Generator) -> None:
    array, before, totals = rng.standard_normal(300_001).astype(np.float32), get_num_threads(), []
    try:
        for threads in (1, min(2, before)):
            set_num_threads(threads)
            totals.append(clip_grad_norm_(with_gradients(array), 1e9).item())
    finally:
        set_num_threads(before)
    assert totals[0] == totals[1]


def test_clip_value() -> None:
    p, q = with_gradients(np.array([-3.0, 0.5, np.nan]), np.array([2.0], np.float32))
    clip_grad_value_([p, q], 1)
    np.testing.assert_array_equal(p.grad.data, [-1, 0.5, np.nan])
    np.testing.assert_array_equal(q.grad.data, [1])


def versions(tensors: list[Tensor]) -> list[int]:
    return [t.grad._version for t in tensors]


def test_versions_change_with_the_values_only() -> None:
    """A backward that saved a gradient raises if that was changed, and only then."""
    tensors = with_gradients(np.array([3.0, 4.0]), np.array([0.5, -0.5]))
    clip_grad_norm_(tensors, 6.0)
    clip_grad_value_(tensors, 4.0)
    assert versions(tensors) == [0, 0]
    clip_grad_value_(tensors, 3.5)
    assert versions(tensors) == [1, 0]
    clip_grad_norm_(tensors, 1.0)
    assert versions(tensors) == [2, 1]
    (negative,) = with_gradients(np.array([0.5, 4.0]))
    clip_grad_value_(negative, -1.0)  # as in PyTorch, the upper bound is the stronger one
    assert negative.grad.data.tolist() == [-1, -1] and negative.grad._version == 1


def test_a_gradient_that_is_needed_may_be_left_alone() -> None:
    p = nnet.tensor([3.0, 4.0], requires_grad=True)
    p.grad = nnet.tensor([0.5, 0.5], requires_grad=True)
    loss = (p.grad * p.grad).sum()
    clip_grad_norm_(p, 10.0)
    clip_grad_value_(p, 1.0)
    loss.backward()
    loss = (p.grad * p.grad).sum()
    with nnet.no_grad():
        clip_grad_value_(p, 0.1)
    with pytest.raises(RuntimeError, match="changed"):
        loss.backward()


@pytest.mark.parametrize("error_if_nonfinite", [False, True])
def test_norms_are_computed_once(error_if_nonfinite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run, passes = dispatch.run, []

    def counted(problem: Any, *rest: Any) -> Any:
        passes.append(problem.operation)
        return run(problem, *rest)

    monkeypatch.setattr(dispatch, "run", counted)
    clip_grad_norm_(with_gradients(np.array([3.0, 4.0]), np.array([0.5])), 6.0, error_if_nonfinite=error_if_nonfinite)
    assert passes == ["vector_norm", "clip"], "one pass over the arrays for all norms, one that scales"


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_])
def test_clipping_is_not_replayed(clip: Any) -> None:
    """Whether anything was clipped while it was recorded says nothing of the next time."""

    def clipped(x: Tensor) -> Tensor:
        holder = Tensor(np.zeros(2, np.float32))
        holder.grad = x + 1
        clip(holder, 5.0)
        return holder.grad * 1

    captured = nnet.capture(clipped)
    with nnet.no_grad():
        for value in (1.0, 1.0, 1.0, 1e3, 2e3):
            x = nnet.tensor([value, -value])
            assert captured(x).tolist() == clipped(x).tolist()
