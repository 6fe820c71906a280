"""The kernels of augmentation against their definitions: bit for bit, of any dtype, shape and memory order."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir

from numbanet.cpu import augment, parallel, sixteen
from numbanet.cpu.isa import NEON, host_isa
from numbanet.problem.augment import Changes
from numbanet.reference import augment as reference
from tests.processes import run_python

SHAPES = [
    (5, 3, 6, 5), (2, 1, 1, 1), (3, 1, 7, 9), (2, 2, 4, 40), (1, 3, 33, 35), (4, 4, 8, 8), (2, 7, 5, 17), (2, 16, 9, 9),
    (2, 17, 3, 4), (3, 20, 4, 1), (40, 3, 32, 32), (1, 3, 70, 64), (1, 1, 2, 9000),
]  # fmt: skip
# padding, fill, size (None: that of the images), mirrored, scaled, side of the square
CHANGES: list[tuple[int, Any, tuple[int, int] | None, bool, bool, int]] = [
    (2, "zero", None, False, False, 0),
    (1, "zero", (2, 3), True, False, 2),
    (3, "reflect", None, True, False, 2),
    (9, "reflect", (3, 50), True, True, 0),
    (40, "reflect", (60, 2), False, False, 0),
    (9, "zero", None, True, True, 3),
    (0, "zero", None, True, True, 100),
    (0, "zero", None, False, True, 0),
    (0, "zero", None, False, False, 3),
    (0, "zero", None, True, False, 0),
    (0, "zero", (1, 1), False, False, 0),
]
LAYOUTS = {
    "channels first": lambda x: x,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "neither": lambda x: np.repeat(x, 2, 3)[:, :, ::-1, ::2],
}


def drawn(rng: np.random.Generator, shape: tuple[int, ...], case: Any) -> Changes:
    padding, fill, size, mirrored, scaled, side = case
    n, c, h, w = shape
    found = Changes(shape, padding=padding, fill=fill, moved=bool(padding or size or mirrored))
    if size is not None:
        found.size = min(size[0], h + 2 * padding), min(size[1], w + 2 * padding)
    found.tops, found.lefts = (rng.integers(v + 2 * padding - s + 1, size=n) for v, s in zip((h, w), found.size))
    if mirrored:
        found.flips = rng.random(n) < 0.5
    if scaled:
        found.scale = rng.random(c).astype(np.float32), rng.random(c).astype(np.float32)
    if side:
        found.square = side, rng.integers(-side, h + 2, n), rng.integers(-side, w + 2, n)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", "bool", "complex128"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_bits_as_the_definition(
    shape: tuple[int, ...], dtype: str, layout: str, rng: np.random.Generator
) -> None:
    images = LAYOUTS[layout](rng.integers(0, 256, shape).astype(dtype))
    before = images.copy()
    chosen = rng.permutation(shape[0])[: shape[0] // 2 + 1]
    for case in CHANGES:
        changes = drawn(rng, shape, case)
        if not augment.supports(images, changes):
            assert case[4] and dtype not in ("uint8", "float32", "float64")
            continue
        found, expected = augment.changed(images, changes), changes.one_by_one(reference, images)
        assert found.dtype == expected.dtype and found.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(found, expected, str(case))
        changes = drawn(rng, (len(chosen), *shape[1:]), case)
        expected = changes.one_by_one(reference, images[chosen])
        np.testing.assert_array_equal(augment.changed(images, changes, chosen), expected, str(case))
    np.testing.assert_array_equal(images, before)


def test_results_that_go_past_the_caches(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "streams", lambda nbytes: True)
    for shape in ((6, 3, 32, 32), (3, 3, 7, 9)):
        images = rng.integers(0, 256, shape).astype(np.uint8)
        for case in CHANGES:
            changes = drawn(rng, shape, case)
            expected = changes.one_by_one(reference, images)
            np.testing.assert_array_equal(augment.changed(images, changes), expected)


def test_what_is_left_to_the_definition() -> None:
    images = np.ones((2, 3, 4, 5), np.float32)
    changes = Changes(images.shape, scale=(np.ones(3, np.float32), np.ones(3, np.float32)))
    assert augment.supports(images, changes)
    for other in (
        images[:, :, :0], images.astype(">f4"), images.astype(np.int32), images.astype(object), np.ma.array(images)
    ):  # fmt: skip
        assert not augment.supports(other, changes)
    assert augment.supports(images.astype(">f4"), Changes(images.shape, moved=True))


def test_any_number_of_threads_gives_the_same_bits(rng: np.random.Generator) -> None:
    images, several = rng.integers(0, 256, (64, 3, 32, 32), np.uint8), parallel.get_num_threads()
    for case in CHANGES:
        changes = drawn(rng, images.shape, case)
        parallel.set_num_threads(1)
        alone = augment.changed(images, changes)
        parallel.set_num_threads(several)
        np.testing.assert_array_equal(augment.changed(images, changes), alone)


GUARDED = """
import ctypes, mmap
import numpy as np
from numbanet.cpu import augment
from numbanet.reference import augment as reference
from tests.cpu.test_augment import CHANGES, drawn

libc, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
def fenced(images, end):
    # A copy that begins, or ends, beside pages that nobody may read.
    size = -(-images.nbytes // page) * page
    whole = mmap.mmap(-1, size + 2 * page)
    base = np.frombuffer(whole, np.uint8)
    for at in (0, size + page):
        assert libc.mprotect(ctypes.c_void_p(base.ctypes.data + at), page, 0) == 0
    start = page + (size - images.nbytes if end else 0)
    copy = base[start : start + images.nbytes].view(images.dtype).reshape(images.shape)
    copy[...] = images
    return copy

rng = np.random.default_rng(0)
for shape in ((2, 3, 7, 5), (9, 1, 4, 4), (2, 3, 32, 32), (1, 2, 1, 1), (3, 20, 3, 3), (2, 5, 9, 31)):
    n, c, h, w = shape
    for dtype in ("uint8", "float32"):
        for end in (False, True):
            first = fenced(rng.integers(0, 256, shape).astype(dtype), end)
            last = fenced(rng.integers(0, 256, (n, h, w, c)).astype(dtype), end).transpose(0, 3, 1, 2)
            for images in (first, last):
                for case in CHANGES:
                    changes = drawn(rng, shape, case)
                    found = augment.changed(images, changes)
                    assert np.array_equal(found, changes.one_by_one(reference, images))
print("inside")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
def test_nothing_is_read_outside_the_images() -> None:
    assert run_python(GUARDED) == "inside"


BEYOND = 256


class Fences:
    """What stands for `memory`: blocks with marked bytes behind."""

    def __init__(self) -> None:
        self.behind: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + BEYOND, 0xAB, np.uint8)
        self.behind.append(raw[size:])
        return raw[:size].view(dtype).reshape(shape)


def test_nothing_is_written_behind_results_and_work(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        for dtype in ("uint8", "float32"):
            for layout in ("channels first", "channels last"):
                images = LAYOUTS[layout](rng.integers(0, 256, shape).astype(dtype))
                for case in CHANGES:
                    fences = Fences()
                    monkeypatch.setattr(augment, "memory", fences)
                    augment.changed(images, drawn(rng, shape, case))
                    assert len(fences.behind) == 2 and all((behind == 0xAB).all() for behind in fences.behind)


NARROW = """
import numpy as np
from numbanet.cpu import augment
from numbanet.cpu.isa import target
from numbanet.reference import augment as reference
from tests.cpu.test_augment import CHANGES, LAYOUTS, drawn
rng = np.random.default_rng(0)
for shape in ((2, 3, 7, 5), (2, 4, 5, 6)):
    for dtype in ("uint8", "float32"):
        for layout in LAYOUTS.values():
            images = layout(rng.integers(0, 256, shape).astype(dtype))
            for case in CHANGES:
                changes = drawn(rng, shape, case)
                assert np.array_equal(augment.changed(images, changes), changes.one_by_one(reference, images))
print("ssse3" in target()[2])
"""


@pytest.mark.skipif(host_isa() is NEON, reason="x86 only")
def test_processors_that_cannot_shuffle_bytes() -> None:
    assert run_python(NARROW, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="") == "False"


def test_arm_shuffles_bytes_in_one_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine code is looked at, and was never run."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    try:
        machine = binding.Target.from_triple(triple).create_target_machine(features="+neon", opt=3)
    except RuntimeError:
        pytest.skip("this llvmlite has no AArch64 back end")
    monkeypatch.setattr(sixteen, "target", lambda: (triple, "generic", frozenset({"neon"})))
    module, vector = ir.Module(), ir.VectorType(ir.IntType(8), 16)
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(vector, [vector, vector]), "shuffle")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(sixteen.ir_shuffle(builder, *function.args))
    assembly = machine.emit_assembly(binding.parse_assembly(str(module)))
    assert assembly.count("\ttbl\t") == 1
