"""The cases run, and the networks that are timed are those of the package."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks import backends, cases, layers, nets, operations, products, steps
from numbanet import models, nn

ROOT = Path(__file__).parents[2]


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.data.size for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in nets.NETS if hasattr(models, name)])
def test_twin_of_a_shipped_model(name):
    with nn.init.skipped():
        twin = nets.NETS[name].build(backends.get("numbanet"))
        shipped = getattr(models, name)()
    assert [v.shape for v in twin.state_dict().values()] == [v.shape for v in shipped.state_dict().values()]


@pytest.mark.parametrize(("name", "table"), [("convnetjs", layers.CONVNETJS), ("resnet20", layers.RESNET20),
                                             ("wide256", layers.WIDE256), ("resnet50", layers.RESNET50),
                                             ("vgg16", layers.VGG16),
                                             ("mobilenet_v2", layers.MOBILENET_V2)])  # fmt: skip
def test_network_has_the_layers_of_its_table(name, table):
    with nn.init.skipped():
        model = nets.NETS[name].build(backends.get("numbanet"))
    expected = sorted((layer.weight_shape, layer.stride) for layer in table for _ in range(layer.count))
    assert sorted((c.weight.shape, c.stride) for c in _convolutions(model)) == expected
    if name == "resnet50":
        assert _parameters(model) == 25_557_032  # as torchvision counts


def test_training_step_lowers_the_loss():
    step = steps.training_call("lenet5", 4, "numbanet")
    losses = [float(backends.to_numpy(step())) for _ in range(5)]
    assert losses[0] == pytest.approx(np.log(10), rel=0.2)
    assert losses == sorted(losses, reverse=True)


def test_inference_gives_scores_and_records_nothing():
    scores = steps.inference_call("convnetjs", 3, "numbanet")()
    assert scores.shape == (3, 10)
    assert not scores.requires_grad


@pytest.mark.parametrize(
    "case",
    [case for case in operations.operation_cases() if "128x10" in case.name or "cifar 64-10" in case.name],
    ids=lambda case: f"{case.section} {case.which}",
)
def test_operation_runs(case):
    result = backends.to_numpy(case.build("numbanet")())
    assert np.isfinite(result).all()
    if case.which in ("training", "backward"):
        assert result.shape[0] == 128 and np.any(result)  # the gradient of the input


@pytest.mark.parametrize("order", products.ORDERS)
def test_products_are_those_of_numpy(order):
    small = [shape for shape in layers.PRODUCTS if max(shape) <= 300]
    for shape in small:
        m, k, n = shape
        want = products.product_call(shape, order, False, "numpy")()
        assert want.shape == (m, n)
        for tensors in (False, True):
            found = backends.to_numpy(products.product_call(shape, order, tensors, "numbanet")())
            np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * np.abs(want).max())
        assert products.kernel(shape, order).startswith("cpu.")


def test_backward_alone_is_the_backward_of_training():
    chosen = operations.operation_cases(("linear", "softmax"))
    found = {(case.name, case.which): case for case in chosen if "128x10" in case.name or "cifar 64-10" in case.name}
    names = {name for name, which in found if which == "backward"}
    assert names
    for name in names:
        call = found[name, "backward"].build("numbanet")
        both = backends.to_numpy(found[name, "training"].build("numbanet")())
        for _ in range(2):  # what is kept serves again
            np.testing.assert_array_equal(backends.to_numpy(call()), both)
    sections = {case.section for case in operations.operation_cases() if case.which == "backward"}
    assert sections == {"activation", "batch_norm", "linear", "pool", "softmax"}


_UPDATES = [case for case in operations.operation_cases(("optimizer",)) if "resnet20" in case.name]


@pytest.mark.parametrize("case", _UPDATES, ids=lambda case: case.name)
def test_updates_change_something_each_time(case):
    call = case.build("numbanet")
    first, second = (backends.to_numpy(call()).copy() for _ in range(2))
    assert np.isfinite(second).all() and not np.array_equal(first, second)


@pytest.mark.parametrize(("net", "count"), operations._PARAMETERS.items())
def test_numbers_of_parameters(net, count):
    with nn.init.skipped():
        assert _parameters(nets.NETS[net].build(backends.get("numbanet"))) == count


def test_every_pass_has_a_rate():
    chosen = operations.operation_cases()
    assert all(bool(case.bytes) != bool(case.flops) for case in chosen)
    size = 4 * 256 * 56 * 56
    found = {(case.section, case.name, case.which): case.bytes / size / 4 for case in chosen}
    for section, name, passes in (
        ("batch_norm", "256 @56", {"forward": 3, "backward": 5, "training": 8}),
        ("activation", "relu 256 @56", {"forward": 2, "backward": 3, "training": 5}),
        ("activation", "dropout 256 @56", {"forward": 2, "backward": 2, "training": 4}),
        ("arithmetic", "mul 256 @56", {"forward": 3, "training": 9}),
    ):
        assert {which: found[section, name, which] for which in passes} == passes
    steps = {case.name: case.bytes for case in chosen if case.which == "step"}
    assert steps["AdamW resnet50"] == 7 * 4 * 25_557_032


def test_every_operation_that_the_library_promises_is_timed():
    names = " ".join(case.name for case in operations.operation_cases())
    for word in ("nll_loss", "flatten", "reshape", "transpose", "indices", "SGD", "Adam", "clip_grad_norm_", "cutout"):
        assert word in names


def test_names_of_cases_are_distinct():
    names = [(case.section, case.name, case.which) for case in operations.operation_cases()]
    names += [(case.section, case.name, case.which) for table in layers.TABLES for case in cases.conv_cases(table)]
    names += [(case.section, case.name, case.which) for case in products.product_cases()]
    assert len(set(names)) == len(names)


def test_channels_last_keeps_values():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    moved = backends.channels_last(x)
    np.testing.assert_array_equal(moved, x)
    assert moved.transpose(0, 2, 3, 1).flags.c_contiguous


def test_suites_import_without_torch_and_compile_nothing():
    """asv imports every module, in its own process too."""
    names = [f"benchmarks.{module.name}" for module in pkgutil.iter_modules(benchmarks.__path__)]
    script = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "from benchmarks import peak\n"
        "assert 'torch' not in sys.modules\nassert not peak.copy.compiled\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


def test_asv_finds_what_the_documentation_names():
    suites = [importlib.import_module(f"benchmarks.{name}") for name in (
        "bench_conv", "bench_operations", "bench_networks", "bench_overhead", "bench_products")]  # fmt: skip
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert all(suite.__name__.removeprefix("benchmarks.") in text for suite in suites)
    assert all(f"`{table}`" in text for table in layers.TABLES)
