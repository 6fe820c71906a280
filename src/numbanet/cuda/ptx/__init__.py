"""What kernels are written in: the compiler's language, one function for each PTX instruction, and the compiler's call.

No other file of the package knows which compiler it is. Kernels take from here

- ``cuda``: ``threadIdx``, ``blockIdx``, ``local.array``, ``shared.array``, ``syncthreads``, and nothing else;
- ``types``: numbers of so many bits, and nothing else;
- the instructions for which Python has no word (`numbanet.cuda.ptx.instructions`, and `numbanet.cuda.ptx.sm90a` for
  those that only one chip has): no kernel contains assembly text;
- ``device``, which makes a function that kernels call (`numbanet.cuda.ptx.compiler`, which also makes PTX of kernels).

The compiler is numba-cuda, which is in maintenance, and its successor knows neither llvmlite nor the names that
`numbanet.cuda.ptx.compiler` calls: a port rewrites this package, and the names of packages in `numbanet.cuda.launch`.
The driver's own packages for Python (cuda.core, cuda.bindings) stay: they are no part of a compiler, and the files that
load kernels and run them don't know how these were compiled.
"""

from __future__ import annotations

from numba import cuda
from numba.cuda import types

from numbanet.cuda.ptx.compiler import device
from numbanet.cuda.ptx.instructions import (
    add_at,
    bits_float,
    copy_async16,
    copy_commit,
    copy_wait,
    float_bits,
    load2,
    load4,
    load_matrices,
    load_matrices_transposed,
    load_shared,
    multiply_bf16,
    multiply_f16,
    multiply_tf32,
    pack_bf16,
    pack_f16,
    pointer,
    pointer_in,
    round_tf32,
    shared_address,
    shuffle_bfly,
    shuffle_down,
    shuffle_idx,
    store2,
    store4,
    store_shared,
    zero,
)

__all__ = [
    "add_at", "bits_float", "copy_async16", "copy_commit", "copy_wait", "cuda", "device", "float_bits", "load2",
    "load4", "load_matrices", "load_matrices_transposed", "load_shared", "multiply_bf16", "multiply_f16",
    "multiply_tf32", "pack_bf16", "pack_f16", "pointer", "pointer_in", "round_tf32", "shared_address", "shuffle_bfly",
    "shuffle_down", "shuffle_idx", "store2", "store4", "store_shared", "types", "zero",
]  # fmt: skip
