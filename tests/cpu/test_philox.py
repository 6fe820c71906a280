"""The random generator against the known answers of the Random123 distribution (kat_vectors, philox4x32 10)."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.cpu.compile import I64, Index, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.philox import philox
from numbanet.cpu.simd import integers, lanes, splat, store_tail
from numbanet.reference.dropout import philox4x32

# counter (4 words), key (2 words), answer (4 words)
KNOWN = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
]


@kernel
def words(task: Index, ints: I64, out: I64):
    c0, c1, c2, c3, k0, k1 = integers(ints, 6)
    answer = philox(splat(out, c0), splat(out, c1), splat(out, c2), splat(out, c3), k0, k1)
    store_tail(out, 0, answer[0], lanes(out))
    store_tail(out, 1 * lanes(out), answer[1], lanes(out))
    store_tail(out, 2 * lanes(out), answer[2], lanes(out))
    store_tail(out, 3 * lanes(out), answer[3], lanes(out))


@pytest.mark.parametrize("line", KNOWN)
def test_known_answers(line):
    numbers = [int(word, 16) for word in line.split()]
    given, answer = numbers[:6], numbers[6:]
    counter, key = np.array(given[:4], np.uint64)[:, None], np.array(given[4:], np.uint64)
    assert philox4x32(counter, key)[:, 0].tolist() == answer
    out = np.full(4 * 64, -1, np.int64)
    launch(words, 1, (out,), given, "float32")
    written = out[out >= 0].reshape(4, -1)
    assert (written == np.array(answer)[:, None]).all()
