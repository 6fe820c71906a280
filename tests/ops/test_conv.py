"""Convolution on arrays: every kernel, every pass, every case of the table, against the definition in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numbanet as nnet
from benchmarks import layers
from numbanet import dispatch, memory
from numbanet.cpu import parallel
from numbanet.cpu.simd import numpy_lanes
from numbanet.problem.conv import conv2d_problem, epilogue
from tests.cases import CONV_CASES, ConvCase, forget_plans, operands

PASSES = ("forward", "backward_input", "backward_weight")
# And their filters and strides.
WINOGRAD = {"cpu.winograd": (3, 1), "cpu.winograd_f2": (3, 1), "cpu.winograd_5x5": (5, 1), "cpu.winograd_s2": (3, 2)}
KERNELS = ("cpu.direct", "cpu.band", "cpu.depthwise", "cpu.depthwise_band", "cpu.grouped", "cpu.pointwise", *WINOGRAD)


def compute(which: str, case: ConvCase, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, grad: np.ndarray):
    """Run one pass."""
    if which == "forward":
        return nnet.ops.conv2d(x, weight, bias, **case.options)
    if which == "backward_input":
        return nnet.ops.conv2d_backward_input(grad, weight, x.shape, **case.options)
    return nnet.ops.conv2d_backward_weight(x, grad, weight.shape, **case.options)


def expected(case: ConvCase, rng: np.random.Generator):
    """Return the operands and the results of all passes in float64."""
    x, weight, bias = operands(case, rng)
    with nnet.use("reference"):
        y = compute("forward", case, x, weight, bias, x)
        grad = rng.standard_normal(y.shape)
        return (x, weight, bias, grad), {w: compute(w, case, x, weight, bias, grad) for w in PASSES}


@pytest.fixture
def poisoned(monkeypatch):
    """Fill every array that the package allocates with NaN: what a kernel forgets to write shows."""
    real = memory.empty

    def empty(shape, dtype, like=None):
        out = real(shape, dtype)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", empty)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel(case, dtype, rng, poisoned):
    arrays, results = expected(case, rng)
    tried = 0
    for which in PASSES:
        problem = conv2d_problem(which, case.x_shape, case.weight_shape, dtype, **case.options)
        for candidate, refusal in dispatch.verdicts(problem, "cpu"):
            if refusal is not None or candidate.name == "reference":
                continue
            with nnet.use(candidate.name):
                out = compute(which, case, *(a.astype(dtype) for a in arrays))
            reference = results[which]
            assert out.dtype == dtype and out.shape == reference.shape
            error = np.abs(out - reference).max() / np.abs(reference).max()
            assert error <= candidate.tolerance(problem), f"{candidate.name} {which}: relative error {error:.1e}"
            tried += 1
    assert tried >= 3


def test_the_table_reaches_every_kernel():
    reached = set()
    for case, which in itertools.product(CONV_CASES, PASSES):
        problem = conv2d_problem(which, case.x_shape, case.weight_shape, "float32", **case.options)
        reached.add(dispatch.choose(problem).name)
        if numpy_lanes("float32") < 8:  # with narrow vectors some kernel may never be the best
            reached |= {candidate.name for candidate, refusal in dispatch.verdicts(problem, "cpu") if not refusal}
            reached.discard("reference")
    large = {"cpu.winograd_s2"}  # chosen for layers that would take long here: see tests/cpu/test_winograd.py
    assert reached | large == set(KERNELS)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_threads_do_not_change_a_bit(case, rng):
    """Of no kernel that computes the case, be it the chosen one or not."""
    x, weight, bias = (a.astype(np.float32) for a in operands(case, rng))
    grad = rng.standard_normal(nnet.ops.conv2d(x, weight, bias, **case.options).shape).astype(np.float32)
    before = parallel.get_num_threads()
    if before == 1:
        pytest.skip("one thread only")
    for which in PASSES:
        problem = conv2d_problem(which, case.x_shape, case.weight_shape, "float32", **case.options)
        names = [c.name for c, refusal in dispatch.verdicts(problem, "cpu") if not refusal and c.name != "reference"]
        for name in names:
            results = []
            try:
                for threads in (1, before):
                    parallel.set_num_threads(threads)
                    forget_plans()
                    with nnet.use(name):
                        results.append(compute(which, case, x, weight, bias, grad))
            finally:
                parallel.set_num_threads(before)
            np.testing.assert_array_equal(*results, err_msg=f"{name} {which}")


def layouts(x: np.ndarray):
    """Yield arrays equal to x with other strides."""
    yield np.ascontiguousarray(x)
    yield np.asfortranarray(x)
    yield np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    yield np.repeat(x, 2, axis=1)[:, ::2]
    frozen = x.copy()
    frozen.flags.writeable = False
    yield frozen
    yield x.astype(x.dtype.newbyteorder())


def test_any_strides(rng):
    case = ConvCase("strides", 2, 18, 7, 6, 20, 3, 3, padding=1)
    (x, weight, bias, grad), results = expected(case, rng)
    for xs, ws, gs in zip(layouts(x), layouts(weight), layouts(grad)):
        for which in PASSES:
            np.testing.assert_allclose(compute(which, case, xs, ws, bias, gs), results[which], rtol=0, atol=1e-11)


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)], ids=str)
@pytest.mark.parametrize("padding", [0, 1, (2, 0)], ids=str)
def test_depthwise_windows_that_leave_pixels_out(stride, padding, rng, poisoned):
    """Where windows do not reach the last columns, a row of positions ends before those columns do."""
    for size, filter_size, dilation in itertools.product([(9, 8), (7, 11)], [(1, 1), (2, 3), (3, 3)], [1, 2]):
        case = ConvCase("grid", 2, 6, *size, 6, *filter_size, stride, padding, dilation, 6)
        arrays, results = expected(case, rng)
        for which in PASSES[:2]:
            with nnet.use("cpu.depthwise"):
                np.testing.assert_allclose(compute(which, case, *arrays), results[which], rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 18])
def test_steps_beyond_the_image(groups, rng):
    """A step of 2**62 leaves one position, as does one of the image's size."""
    x, weight = rng.standard_normal((2, 18, 9, 11)), rng.standard_normal((36, 18 // groups, 3, 3))
    grad = rng.standard_normal((2, 36, 1, 1))

    def passes(step):
        return (
            nnet.ops.conv2d(x, weight, None, step, 1, 1, groups),
            nnet.ops.conv2d_backward_input(grad, weight, x.shape, step, 1, 1, groups),
            nnet.ops.conv2d_backward_weight(x, grad, weight.shape, step, 1, 1, groups),
        )

    for found, want in zip(passes(2**62), passes(11)):
        assert np.array_equal(found, want)


def test_results_are_channels_last(rng):
    case = CONV_CASES[3]
    (x, weight, bias, grad), _ = expected(case, rng)
    for which in PASSES:
        assert compute(which, case, x, weight, bias, grad).transpose(0, 2, 3, 1).flags.c_contiguous


def test_unbatched(rng):
    case = ConvCase("unbatched", 1, 6, 7, 6, 5, 3, 3, padding=1)
    (x, weight, bias, grad), results = expected(case, rng)
    for which in PASSES:
        out = compute(which, case, x[0], weight, bias, grad[0])
        np.testing.assert_allclose(out, results[which] if which == "backward_weight" else results[which][0], atol=1e-12)


@pytest.mark.parametrize("groups", [1, 4])
def test_empty_batch(groups):
    x, weight = np.zeros((0, 4, 5, 5), np.float32), np.ones((8, 4 // groups, 3, 3), np.float32)
    y = nnet.ops.conv2d(x, weight, np.ones(8, np.float32), padding=1, groups=groups)
    assert y.shape == (0, 8, 5, 5)
    assert nnet.ops.conv2d_backward_input(y, weight, x.shape, padding=1, groups=groups).shape == x.shape
    dw = nnet.ops.conv2d_backward_weight(x, y, weight.shape, padding=1, groups=groups)
    np.testing.assert_array_equal(dw, np.zeros_like(weight))


def test_no_channels_leave_the_bias():
    x, weight, bias = np.zeros((2, 0, 4, 4)), np.zeros((3, 0, 2, 2)), np.array([1.0, 2.0, 3.0])
    y = nnet.ops.conv2d(x, weight, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None, None], (2, 3, 3, 3)))
    y6 = nnet.ops.conv2d(x, weight, bias, residual=3 * y, activation="relu6")
    np.testing.assert_array_equal(y6, np.minimum(4 * y, 6))


EPILOGUE_CASES = (
    "pointwise",
    "3x3, odd channels",
    "3x3, stride 2, odd size",
    "every width of a last panel: 2 vectors",
    "long reduction in several blocks",
    "few in-channels",
    "groups of odd size",
    "depthwise",
)
EPILOGUES = list(itertools.product((False, True), (False, True), (None, "relu", "relu6")))


def finished(y: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None, activation: str | None):
    """Return y after an epilogue, from its definition."""
    y = y if bias is None else y + bias[:, None, None]
    y = y if residual is None else y + residual
    return y if activation is None else np.where(y < 0, 0, y) if activation == "relu" else np.clip(y, 0, 6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [case for case in CONV_CASES if case.name in EPILOGUE_CASES], ids=str)
def test_every_epilogue_of_every_kernel(case, dtype, rng, poisoned):
    x, weight, bias = (a.astype(dtype) for a in operands(case, rng))
    x, bias = 4 * x, 4 * bias  # some results above six
    with nnet.use("reference"):
        plain = nnet.ops.conv2d(x.astype(float), weight.astype(float), **case.options)
    addend = rng.standard_normal(plain.shape).astype(dtype)
    for with_bias, with_residual, activation in EPILOGUES:
        then = bias if with_bias else None, addend if with_residual else None, activation
        fused = epilogue(with_bias, with_residual, activation)
        problem = conv2d_problem("forward", x.shape, weight.shape, dtype, **case.options, epilogue=fused)
        reference = finished(plain, *then)
        tried = 0
        for candidate, refusal in dispatch.verdicts(problem, "cpu"):
            if refusal is None:
                with nnet.use(candidate.name):
                    y = nnet.ops.conv2d(x, weight, then[0], **case.options, residual=then[1], activation=activation)
                error = np.abs(y - reference).max() / np.abs(plain).max()
                assert error <= candidate.tolerance(problem), f"{candidate.name} {then}: relative error {error:.1e}"
                tried += 1
        assert tried >= 2  # a kernel, and the reference


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("channels", [3, 20])
def test_an_activation_keeps_nan(activation, channels):
    x, weight = np.zeros((1, channels, 4, 4)), np.ones((2, channels, 1, 1))
    x[0, 1, 2, 3] = np.nan
    x[0, 1, 1] = -1, 0.5, 7, np.inf
    y = nnet.ops.conv2d(x, weight, activation=activation)
    np.testing.assert_array_equal(y[0, 0, 1], [0, 0.5, 7, np.inf] if activation == "relu" else [0, 0.5, 6, 6])
    assert np.isnan(y[0, :, 2, 3]).all() and np.isnan(y).sum() == 2


def test_a_residual_of_any_strides(rng):
    x, weight = rng.standard_normal((2, 20, 6, 5)), rng.standard_normal((18, 20, 1, 1))
    residual = rng.standard_normal((2, 18, 6, 5))
    y = nnet.ops.conv2d(x, weight) + residual
    for addend in layouts(residual):
        np.testing.assert_allclose(nnet.ops.conv2d(x, weight, residual=addend), y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(nnet.ops.conv2d(x[0], weight, residual=residual[0]), y[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_reach_their_outputs_only(channels, value, rng):
    x, weight = rng.standard_normal((1, channels, 9, 9)), rng.standard_normal((4, channels, 3, 3))
    clean = nnet.ops.conv2d(x, weight, padding=1)
    x[0, 1, 4, 4] = value
    y = nnet.ops.conv2d(x, weight, padding=1)
    hit = np.zeros(y.shape, bool)
    hit[:, :, 3:6, 3:6] = True
    assert not np.isfinite(y[hit]).any()
    np.testing.assert_array_equal(y[~hit], clean[~hit])


def test_guard_bytes_around_the_result(rng, monkeypatch):
    real, guards = memory.empty, []

    def empty(shape, dtype, like=None):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = np.full(size + 512, 171, np.uint8)
        guards.append((block[:256], block[256 + size :]))
        return block[256 : 256 + size].view(dtype).reshape(shape)

    for case in CONV_CASES:
        x, weight, bias = (a.astype(np.float32) for a in operands(case, rng))
        y = nnet.ops.conv2d(x, weight, bias, **case.options)
        monkeypatch.setattr(memory, "empty", empty)
        for which in PASSES:
            compute(which, case, x, weight, bias, np.ones_like(y))
        monkeypatch.setattr(memory, "empty", real)
    assert guards and all((g == 171).all() for pair in guards for g in pair)


X, W = np.zeros((2, 4, 8, 8), np.float32), np.zeros((6, 4, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "input must have shape", {"x": np.zeros((4, 8), np.float32)}),
        (ValueError, "weight must have shape", {"weight": np.zeros((6, 4, 3), np.float32)}),
        (ValueError, "input must have 4 channels", {"x": np.zeros((2, 5, 8, 8), np.float32)}),
        (ValueError, "bias must have shape", {"bias": np.zeros(5, np.float32)}),
        (ValueError, "stride must be at least 1, got 0", {"stride": 0}),
        (ValueError, "stride must be", {"stride": (1, 2, 3)}),
        (TypeError, "stride must be an integer, got 1.5", {"stride": 1.5}),
        (ValueError, "padding must be at least 0, got -1", {"padding": -1}),
        (ValueError, "padding must be one of", {"padding": "full"}),
        (ValueError, "padding='same' needs stride 1", {"padding": "same", "stride": 2}),
        (ValueError, "dilation must be at least 1", {"dilation": 0}),
        (ValueError, "groups must be at least 1", {"groups": 0}),
        (ValueError, "groups must divide", {"groups": 4, "weight": np.zeros((6, 1, 3, 3), np.float32)}),
        (ValueError, "weight spans 17 x 17 pixels", {"dilation": 8}),
        (TypeError, "dtypes must be equal", {"weight": W.astype(np.float64)}),
        (TypeError, "dtypes must be equal, got input: int64", {"x": X.astype(np.int64)}),
        (TypeError, "input must have dtype", {"x": X.astype(bool)}),
        (TypeError, "weight must have dtype", {"weight": W.astype(complex)}),
        (ValueError, "residual must have the result's shape", {"residual": np.zeros((2, 6, 8, 8), np.float32)}),
        (TypeError, "dtypes must be equal.*residual", {"residual": np.zeros((2, 6, 6, 6))}),
        (ValueError, "activation must be one of 'relu', 'relu6', got 'tanh'", {"activation": "tanh"}),
    ],
)
def test_bad_arguments_are_named(error, words, arguments):
    with pytest.raises(error, match=words):
        nnet.ops.conv2d(**{"x": X, "weight": W, **arguments})


def test_integers_are_convolved_by_the_definition(rng):
    """Without rounding, and without the notice that no kernel takes a problem."""
    x, weight, bias = rng.integers(-9, 9, (2, 4, 7, 6)), rng.integers(-9, 9, (6, 2, 3, 2)), rng.integers(-9, 9, 6)
    options = {"stride": 2, "padding": (1, 0), "groups": 2}
    found = nnet.ops.conv2d(x, weight, bias, **options)
    want = nnet.ops.conv2d(*(a.astype(np.float64) for a in (x, weight, bias)), **options)
    assert found.dtype == np.int64 and np.array_equal(found, np.rint(want))
    large = np.full((1, 1, 1, 1), 2**53 + 1)
    assert nnet.ops.conv2d(large, np.ones((1, 1, 1, 1), np.int64)).item() == 2**53 + 1


def test_a_gradient_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"grad must have the result's shape \(2, 6, 6, 6\)"):
        nnet.ops.conv2d_backward_input(np.zeros((2, 6, 8, 8), np.float32), W, X.shape)


def refusals(problem):
    return [(candidate.name, reason) for candidate, reason in dispatch.verdicts(problem, "cpu")]


def test_strict_precision_excludes_winograd(rng):
    problem = conv2d_problem("forward", (2, 64, 16, 16), (64, 64, 3, 3), "float32", padding=1)
    assert dispatch.choose(problem).name == "cpu.winograd"
    with nnet.precision("strict"):
        assert dispatch.choose(problem).name == "cpu.direct"
        found = dict(refusals(problem))
        assert {found[name] for name in WINOGRAD} == {"the precision is 'strict'"}
    assert dispatch.choose(problem).name == "cpu.winograd"


@pytest.mark.parametrize("channels", [16, 64, 256])
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_error_on_activations(name, channels, rng):
    """Rectified activations and weights of a trained size: bound 1e-5, both passes."""
    size, stride = WINOGRAD[name]
    options = {"stride": stride, "padding": size // 2}
    x = np.maximum(rng.standard_normal((1, channels, 14, 14)), 0)
    weight = rng.standard_normal((32, channels, size, size)) / np.sqrt(size * size * channels)
    grad = rng.standard_normal((1, 32, 14 // stride, 14 // stride))
    single = [a.astype(np.float32) for a in (x, weight, grad)]
    for out, reference in [
        (lambda a, w, g: nnet.ops.conv2d(a, w, **options), nnet.ops.conv2d(x, weight, **options)),
        (
            lambda a, w, g: nnet.ops.conv2d_backward_input(g, w, a.shape, **options),
            nnet.ops.conv2d_backward_input(grad, weight, x.shape, **options),
        ),
    ]:
        with nnet.use(name):
            result = out(*single)
        assert np.abs(result - reference).max() <= 1e-5 * np.abs(reference).max()


@pytest.mark.parametrize("channels", [300, 1024])
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_keeps_its_tolerance_with_many_channels(name, channels, rng):
    size, stride = WINOGRAD[name]
    case = ConvCase("deep", 1, channels, 8, 8, 20, size, size, stride=stride, padding=1)
    (x, weight, bias, grad), results = expected(case, rng)
    single = [a.astype(np.float32) for a in (x, weight, bias, grad)]
    with nnet.use(name):
        y = compute("forward", case, *single)
    assert np.abs(y - results["forward"]).max() <= 1e-5 * np.abs(results["forward"]).max()


@pytest.mark.parametrize("shape", [(1, 1, 1, 200_000), (3, 1, 300, 301)])
@pytest.mark.parametrize("size", [1, 3])
def test_long_sums_keep_their_digits(shape, size, rng):
    """A sum of 2e5 positive numbers in float32: blocked, it keeps what one long chain would lose."""
    x = rng.random(shape)
    grad = rng.random((shape[0], 2, *shape[2:]))
    arguments = (2, 1, 1, size), 1, (0, size // 2)
    reference = nnet.ops.conv2d_backward_weight(x, grad, *arguments)
    for name in ("cpu.direct", "cpu.band"):
        with nnet.use(name):
            try:
                dw = nnet.ops.conv2d_backward_weight(x.astype(np.float32), grad.astype(np.float32), *arguments)
            except ValueError:
                assert name == "cpu.band"  # rows of 200,000 pixels do not fit
                continue
        assert np.abs(dw - reference).max() <= 5e-6 * np.abs(reference).max()


def test_shapes_are_checked(rng):
    grad, weight = np.zeros((2, 8, 38, 38), np.float32), np.zeros((8, 64, 3, 3), np.float32)
    shape = np.array([2, 64, 40, 40], np.int16)  # NumPy's numbers would overflow in products
    assert nnet.ops.conv2d_backward_input(grad, weight, shape).shape == (2, 64, 40, 40)
    for wrong in ((2.0, 64, 40, 40), None, 9, (2, 64, 40, True), (2, 64, -40, 40)):
        with pytest.raises((TypeError, ValueError), match="input"):
            nnet.ops.conv2d_backward_input(grad, weight, wrong)
    with pytest.raises(TypeError, match="weight_shape must be a sequence of sizes, got None"):
        nnet.ops.conv2d_backward_weight(np.zeros((2, 64, 40, 40), np.float32), grad, None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"stride": (1.0, 1.0)},
        {"stride": (True, True)},
        {"padding": ((0.0, 0), (0, 0))},
        {"groups": [1]},
        {"groups": 1.0},
        {"stride": np.array([1, 1])},
        {"dilation": "1"},
    ],
    ids=str,
)
def test_a_good_call_before_does_not_make_a_bad_one_good(arguments):
    nnet.ops.conv2d(X, W, stride=(1, 1), padding=((0, 0), (0, 0)), groups=1)
    with pytest.raises(TypeError, match=f"{next(iter(arguments))} must be an integer"):
        nnet.ops.conv2d(X, W, **arguments)


def test_numpy_integers_are_integers():
    options = {"stride": np.int64(2), "padding": (np.int32(1), 1), "groups": np.int8(1)}
    assert nnet.ops.conv2d(X, W, **options).shape == (2, 6, 4, 4)


@pytest.mark.parametrize("table", sorted(layers.TABLES))
@pytest.mark.parametrize("precision", ["float32", "strict"])
def test_every_layer_of_the_benchmarks_has_a_fast_kernel(table, precision):
    for layer, which in itertools.product(layers.TABLES[table], PASSES):
        options = layer.stride, layer.pad, layer.dilation, layer.groups
        with nnet.precision(precision):
            problem = conv2d_problem(which, layer.x_shape, layer.weight_shape, "float32", *options)
            assert dispatch.choose(problem).name in KERNELS, layer
        assert (problem.p, problem.q) == (layer.p, layer.q)
