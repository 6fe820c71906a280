"""Which kernel runs a layer, which were refused and why, and how their results and times differ.

    python examples/choose_a_kernel.py
"""

import time

import numpy as np

import numbanet as nnet


def seconds(function, repeats=5):
    function()  # compiles
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def main():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 28, 28, 64), dtype=np.float32).transpose(0, 3, 1, 2)  # NCHW shape, NHWC memory
    weight = rng.standard_normal((64, 64, 3, 3), dtype=np.float32) / 24
    print(nnet.explain("conv2d", x.shape, weight.shape, padding=1))

    exact = nnet.ops.conv2d(x.astype(np.float64), weight.astype(np.float64), padding=1)
    errors = {}
    for name in ("cpu.winograd", "cpu.direct"):
        with nnet.use(name):
            y = nnet.ops.conv2d(x, weight, padding=1)
            milliseconds = 1e3 * seconds(lambda: nnet.ops.conv2d(x, weight, padding=1))
        errors[name] = float(np.abs(y - exact).max() / np.abs(exact).max())
        print(f"{name:<13} {milliseconds:6.2f} ms   relative error {errors[name]:.1e}")
    return errors


if __name__ == "__main__":
    main()
