"""The table of numbanet.ops: how to draw the arguments of each function, and the answer of its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numbanet import ops
from tests.fuzz.arrays import Draw
from tests.fuzz.check import Call, Line
from tests.fuzz.draws import elements, losses, norms, shapes, windows


def _gradient(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that takes what `forward` takes, and hands its state to `backward` with a gradient."""

    def run(grad: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(grad, np.ndarray) or grad.ndim or grad.dtype.kind not in "biuf":
            raise TypeError(f"grad must be an array of no dimension, got {grad!r}")
        result, state = forward(*args, **kwargs)
        return backward(np.broadcast_to(grad, result.shape).astype(result.dtype), state)

    run.about = forward  # type: ignore[attr-defined]
    return run


def _with_grad(draw_forward: Callable[[Draw], Call]) -> Callable[[Draw], Call]:
    def draw(d: Draw) -> Call:
        args, kwargs = draw_forward(d)
        return (d.floats(()), *args), kwargs

    return draw


def _like(*names: str) -> Callable[[Draw], Call]:
    """Return a draw of arrays of one shape."""

    def draw(d: Draw) -> Call:
        shape = d.shape()
        return tuple(d.floats(shape) for _ in names), {}

    return draw


def _backward_of(shaped: Callable[..., Any], draw_forward: Callable[[Draw], Call]) -> Callable[[Draw], Call]:
    """Return a draw of (grad, shape of the input, options) for a function of an array and options."""

    def draw(d: Draw) -> Call:
        (x, *rest), kwargs = draw_forward(d)
        result = shaped(np.zeros(x.shape, np.float32), *rest, **kwargs)
        result = result[0] if isinstance(result, tuple) else result
        return (d.floats(result.shape), x.shape, *rest), kwargs

    return draw


def _elementwise() -> Iterator[Line]:
    for name in ("neg", "abs", "exp", "log", "sqrt"):
        answer = elements.by_numpy({"neg": "negative"}.get(name, name), floating=name in ("exp", "log", "sqrt"))
        yield Line(f"ops.{name}", getattr(ops, name), elements.numbers, answer, each=True)
    binary = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum,
        "minimum": np.minimum, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
        "gt": np.greater, "ge": np.greater_equal,
    }  # fmt: skip
    for name, function in binary.items():
        yield Line(f"ops.{name}", getattr(ops, name), elements.two, function, each=True)
    yield Line("ops.pow", ops.pow, elements.powers, np.power, each=True, tolerance=1e-4)
    yield Line("ops.clamp", ops.clamp, elements.clamp, elements.clamped, each=True)
    yield Line("ops.where", ops.where, elements.where, np.where, each=True)
    for name in ("relu", "sigmoid", "tanh", "silu"):
        yield Line(f"ops.{name}", getattr(ops, name), elements.one, each=True)
        yield Line(
            f"ops.{name}_backward", getattr(ops, f"{name}_backward"), _like("grad", "y"), tolerance=1e-4, absolute=1e-6,
            exact=False,
        )  # fmt: skip
    yield Line("ops.gelu", ops.gelu, elements.gelu, each=True, tolerance=1e-4)
    yield Line("ops.leaky_relu", ops.leaky_relu, elements.slope, each=True)
    gelu_backward = elements.with_shape_of(elements.gelu)
    yield Line("ops.gelu_backward", ops.gelu_backward, gelu_backward, tolerance=1e-4, absolute=1e-6, exact=False)
    yield Line("ops.leaky_relu_backward", ops.leaky_relu_backward, elements.with_shape_of(elements.slope), each=True)
    words = ("function", "operands", "operand", "parameters")
    yield Line("ops.pointwise", ops.pointwise, elements.pointwise, words=words)
    yield Line(
        "ops.pointwise_sum", ops.pointwise_sum, elements.pointwise_sum, words=("function", "operands", "operand"),
    )  # fmt: skip
    yield Line("ops.dropout", ops.dropout, elements.dropout, loose=True)


def _reductions() -> Iterator[Line]:
    yield Line("ops.sum", ops.sum, elements.reduction, elements.summed)
    yield Line("ops.mean", ops.mean, elements.float_reduction, elements.averaged)
    yield Line("ops.extremum", ops.extremum, elements.extremum)
    yield Line("ops.vector_norm", ops.vector_norm, elements.vector_norm, elements.norm, tolerance=1e-5)
    yield Line("ops.vector_norms", ops.vector_norms, elements.vector_norms, elements.norms, tolerance=1e-5)
    yield Line("ops.softmax", ops.softmax, elements.along)
    yield Line("ops.log_softmax", ops.log_softmax, elements.along)
    for name in ("softmax", "log_softmax"):
        yield Line(f"ops.{name}_backward", getattr(ops, f"{name}_backward"), elements.with_shape_of(elements.along))


def _shapes() -> Iterator[Line]:
    yield Line("ops.clone", ops.clone, elements.any_one, np.array)
    yield Line("ops.contiguous", ops.contiguous, elements.any_one, np.array)
    yield Line("ops.reshape", ops.reshape, shapes.reshape, np.reshape)
    yield Line("ops.to_dtype", ops.to_dtype, shapes.to_dtype, shapes.converted)
    yield Line("ops.cat", ops.cat, shapes.cat, shapes.joined, words=("arrays",))
    yield Line("ops.pad", ops.pad, shapes.pad, shapes.padded)
    yield Line("ops.pad_backward", ops.pad_backward, _backward_of(ops.pad, shapes.pad_backward))
    yield Line("ops.channel_shuffle", ops.channel_shuffle, shapes.channel_shuffle, shapes.by_array(shapes.shuffled))
    yield Line("ops.pixel_shuffle", ops.pixel_shuffle, shapes.pixel_shuffle, shapes.by_array(shapes.pixels_shuffled))
    yield Line(
        "ops.pixel_unshuffle", ops.pixel_unshuffle, shapes.pixel_unshuffle, shapes.by_array(shapes.pixels_unshuffled)
    )
    yield Line("ops.unfold", ops.unfold, shapes.unfold)
    yield Line("ops.fold", ops.fold, shapes.fold)
    yield Line("ops.interpolate", ops.interpolate, shapes.interpolate, exact=False)
    yield Line(
        "ops.interpolate_backward", ops.interpolate_backward,
        _backward_of(ops.interpolate, shapes.interpolate), exact=False,
    )  # fmt: skip


def _convolutions() -> Iterator[Line]:
    options: dict[str, Any] = {"tolerance": 6e-5, "exact": False}
    yield Line("ops.conv2d", ops.conv2d, windows.conv2d_fused, **options)
    yield Line("ops.conv2d_shape", ops.conv2d_shape, windows.conv2d_plain, windows.conv2d_shape)
    yield Line("ops.conv2d_backward_input", ops.conv2d_backward_input, windows.conv2d_backward_input, **options)
    yield Line(
        "ops.add_conv2d_backward_input", ops.add_conv2d_backward_input, windows.add_conv2d_backward_input, **options
    )
    yield Line("ops.conv2d_backward_weight", ops.conv2d_backward_weight, windows.conv2d_backward_weight, **options)
    yield Line("ops.prepare_conv2d", windows.prepared_conv2d, windows.conv2d_call, **options)
    yield Line("ops.conv_transpose2d", ops.conv_transpose2d, windows.conv_transpose2d, **options)
    yield Line(
        "ops.conv_transpose2d_backward", ops.conv_transpose2d_backward, windows.conv_transpose2d_backward, **options
    )  # fmt: skip
    yield Line("ops.matmul", ops.matmul, windows.matmul, np.matmul, **options)
    yield Line("ops.add_matmul", ops.add_matmul, windows.add_matmul, windows.added, **options)
    yield Line("ops.linear", ops.linear, windows.linear_fused, **options)
    yield Line("ops.prepare_linear", windows.prepared_linear, windows.linear_prepared, **options)


def _pools() -> Iterator[Line]:
    yield Line("ops.max_pool2d", ops.max_pool2d, windows.max_pool)
    yield Line("ops.max_pool2d_backward", ops.max_pool2d_backward, windows.max_pool_gradient)
    yield Line("ops.avg_pool2d", ops.avg_pool2d, windows.avg_pool)
    yield Line("ops.avg_pool2d_backward", ops.avg_pool2d_backward, _backward_of(ops.avg_pool2d, windows.avg_pool))
    yield Line("ops.adaptive_avg_pool2d", ops.adaptive_avg_pool2d, windows.adaptive)
    yield Line(
        "ops.adaptive_avg_pool2d_backward", ops.adaptive_avg_pool2d_backward, windows.adaptive_backward
    )  # fmt: skip
    yield Line("ops.adaptive_max_pool2d", ops.adaptive_max_pool2d, windows.adaptive)
    yield Line(
        "ops.adaptive_max_pool2d_backward", ops.adaptive_max_pool2d_backward, windows.adaptive_max_backward,
        also=(IndexError,),
    )  # fmt: skip


def _normalisations() -> Iterator[Line]:
    batch: dict[str, Any] = {"writes": (1, 2), "tolerance": 2e-4, "exact": False, "absolute": 1e-5}
    for name in ("batch_norm", "batch_norm_forward"):
        yield Line(f"ops.{name}", getattr(ops, name), norms.batch_norm, **batch)
    yield Line("ops.batch_norm_statistics", ops.batch_norm_statistics, norms.batch_norm, **batch)
    yield Line("ops.batch_norm_apply", ops.batch_norm_apply, norms.batch_norm_apply, tolerance=1e-4, absolute=1e-5)
    yield Line(
        "ops.batch_norm_backward", ops.batch_norm_backward, norms.batch_norm_backward,
        tolerance=2e-3, exact=False, absolute=1e-5,
    )  # fmt: skip
    for name in ("group_norm", "group_norm_forward"):
        yield Line(f"ops.{name}", getattr(ops, name), norms.group_norm, tolerance=2e-4, exact=False, absolute=1e-5)
    for name in ("layer_norm", "layer_norm_forward"):
        yield Line(f"ops.{name}", getattr(ops, name), norms.layer_norm, tolerance=2e-4, exact=False, absolute=1e-5)
    yield Line(
        "ops.group_norm_backward", ops.group_norm_backward, norms.group_norm_backward,
        tolerance=2e-3, exact=False, absolute=1e-5,
    )  # fmt: skip
    yield Line(
        "ops.layer_norm_backward", ops.layer_norm_backward, norms.layer_norm_backward,
        tolerance=2e-3, exact=False, absolute=1e-5,
    )  # fmt: skip
    yield Line("ops.local_response_norm", ops.local_response_norm, norms.response, tolerance=1e-4, exact=False)
    yield Line(
        "ops.local_response_norm_backward", ops.local_response_norm_backward, elements.with_shape_of(norms.response),
        tolerance=1e-4, exact=False,
    )  # fmt: skip


def _losses() -> Iterator[Line]:
    index: dict[str, Any] = {"also": (IndexError,), "tolerance": 5e-5, "absolute": 1e-6}
    pairs = {"cross_entropy": losses.cross_entropy, "nll_loss": losses.nll_loss, "mse_loss": losses.mse_loss}
    for name, draw in pairs.items():
        forward, backward = getattr(ops, f"{name}_with_state"), getattr(ops, f"{name}_backward")
        yield Line(f"ops.{name}", getattr(ops, name), draw, **index)
        yield Line(f"ops.{name}_with_state", losses.first_of(forward), draw, **index)
        yield Line(f"ops.{name}_backward", _gradient(forward, backward), _with_grad(draw), **index, exact=False)
    yield Line(
        "ops.cross_entropy_backward_target",
        _gradient(ops.cross_entropy_with_state, ops.cross_entropy_backward_target),
        _with_grad(losses.cross_entropy_probabilities), **index,
    )  # fmt: skip


def _updates() -> Iterator[Line]:
    for name, (states, draw) in losses.STEPS.items():
        yield Line(
            f"ops.{name}", getattr(ops, name), losses.step(states, draw), writes=(0, *range(2, 2 + states)),
            tolerance=1e-4, absolute=1e-6, exact=False, words=("parameter", "grad", "state"),
            loose=name in ("rmsprop_step", "adadelta_step"),  # with other decays they divide by what cancels
        )  # fmt: skip
    yield Line("ops.scale_", ops.scale_, losses.scaled, writes=(0,))
    yield Line("ops.clip_norm_", ops.clip_norm_, losses.clipped, writes=(0,), tolerance=1e-5, exact=False)
    yield Line("ops.clamp_", ops.clamp_, losses.clamped_in_place, writes=(0,))
    yield Line("ops.fill_", ops.fill_, losses.scaled, writes=(0,))


def lines() -> list[Line]:
    """Return the lines of numbanet.ops."""
    groups = (
        _elementwise, _reductions, _shapes, _convolutions, _pools, _normalisations, _losses, _updates
    )  # fmt: skip
    return [line for group in groups for line in group()]
