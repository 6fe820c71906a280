"""The tests in float64 see faults of kernels in float64: numbers that go through float32 or move by halves, and others.

Each plants one into all kernels of a name that a test of another file compiles for float64; that test must fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from numbanet.cuda.compile import Kernel
from numbanet.cuda.launch import executor
from tests.cuda import (
    test_conv,
    test_elementwise,
    test_flat,
    test_loss,
    test_matmul,
    test_norm,
    test_optim,
    test_reduce,
)
from tests.cuda.ptx.executor import Interpreter
from tests.cuda.ptx.memory import Fault


def rounded(text: str) -> str:
    """Let every number that is stored go through float32."""

    def through(match: re.Match) -> str:
        steps = [
            f"cvt.rn.f32.f64 %planted1, {name};\n\tcvt.f64.f32 {name}, %planted1;"
            for name in re.findall(r"%fd\d+", match[0])
        ]
        return "\n\t".join(["", *steps, match[0].strip()])

    text = re.sub(r"\n\tst\.global[.\w]*\.f64 .*", through, text)
    return text.replace("\t.reg .b64", "\t.reg .f32 \t%planted<2>;\n\t.reg .b64", 1)


def halved(text: str) -> str:
    """Let the upper half of a number stay where it is, where threads of a warp exchange the numbers."""
    count = iter(range(1000))
    return re.sub(
        r"(shfl\.sync\.\w+\.b32 %r\d+, %r\d+, )%r\d+,", lambda m: f"{m[1]}0," if next(count) % 2 else m[0], text
    )


def unguarded(text: str) -> str:
    """Leave the barriers out."""
    return re.sub(r"bar\.sync\s+0;", "", text)


def beyond(text: str) -> str:
    """Let a loop or a guard take one more."""
    return re.sub(r"setp\.(lt|ge)\.s(32|64)", lambda m: f"setp.{'le' if m[1] == 'lt' else 'gt'}.s{m[2]}", text)


def elementwise() -> None:
    rng = np.random.default_rng(0)
    test_elementwise.elementwise("add", rng.standard_normal((3, 5)), rng.standard_normal(5))


def convolution(which: str) -> Callable[[], None]:
    return lambda: test_conv.test_float64(*test_conv.named(test_conv.DOUBLE_CASES[1]), which)


def batch_norm() -> None:
    test_norm.test_every_pass((50, 16), "float64")


def cross_entropy(probabilities: bool) -> Callable[[], None]:
    return lambda: test_loss.test_cross_entropy(*test_loss.CASES[0], probabilities)


def product() -> None:
    test_matmul.test_every_memory_order("float64", test_matmul.SHAPES[1], True, False)


def dropout() -> None:
    test_optim.test_dropout_sends_gradients_back_by_the_flags_that_it_wrote(67, "float64", 0.3)


FAULTS = {
    "flat.flat": (lambda: test_flat.test_the_loop("float64", 5), [rounded, beyond]),
    "elementwise.walk": (elementwise, [rounded, beyond]),
    "conv_naive.forward": (convolution("forward"), [rounded, beyond]),
    "conv_naive.backward_input": (convolution("backward_input"), [rounded, beyond]),
    "conv_naive.backward_weight": (convolution("backward_weight"), [rounded, beyond]),
    "matmul_naive.matmul": (product, [rounded, beyond]),
    "moments.moments": (batch_norm, [rounded, unguarded]),
    "norm.statistics": (batch_norm, [rounded, halved]),
    "norm.normalise": (batch_norm, [rounded]),
    "norm_backward.sums": (batch_norm, [rounded, unguarded]),
    "norm_backward.apply": (batch_norm, [rounded]),
    "loss.cross_entropy": (cross_entropy(False), [rounded, halved]),
    "loss.cross_entropy_backward": (cross_entropy(False), [rounded]),
    "optim.step": (lambda: test_optim.test_every_rule(*test_optim.STEPS[3]), [rounded]),
    "dropout.dropout": (dropout, [rounded, beyond]),
    "dropout.send_back": (dropout, [rounded, beyond]),
    "reduce.rows_of_a_warp": (lambda: test_reduce.test_sums((9, 33, 1)), [rounded, halved]),
    "reduce.columns_of_a_strip": (lambda: test_reduce.test_sums((2, 37, 3)), [rounded, unguarded]),
}


@pytest.mark.parametrize("run", [pytest.param(run, id=kernel) for kernel, (run, _) in FAULTS.items()])
def test_without_a_fault_nothing_is_seen(run: Callable[[], None]) -> None:
    with executor(Interpreter()):
        run()


PLANTED = [
    pytest.param(kernel, run, fault, id=f"{kernel} {fault.__name__}")
    for kernel, (run, faults) in FAULTS.items()
    for fault in faults
]


@pytest.mark.parametrize(("kernel", "run", "fault"), PLANTED)
def test_a_fault_in_float64_is_seen(
    kernel: str, run: Callable[[], None], fault: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ptx, planted = Kernel.ptx, []

    def broken(self: Kernel, dtype: str = "float32", capability: tuple = (8, 0)) -> str:
        text = ptx(self, dtype, capability)
        if dtype != "float64" or self.name.partition("[")[0] != kernel:
            return text
        planted.append(fault(text) != text)
        return fault(text)

    monkeypatch.setattr(Kernel, "ptx", broken)
    with executor(Interpreter()), pytest.raises((AssertionError, Fault)):
        run()
    assert any(planted)
