"""Which kernels the layers of well-known networks get on a GPU."""

import pytest

import numbanet as nnet
from benchmarks import layers
from numbanet import dispatch
from numbanet.cuda.launch import executor
from numbanet.problem.conv import conv2d_problem
from numbanet.problem.matmul import MatmulProblem
from tests.cuda.ptx.executor import Interpreter

PRECISIONS = ["float32", "strict", "tf32", "bf16", "fp16"]
CAPABILITIES = [(8, 0), (9, 0, "a"), (10, 0)]


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_layer_gets_a_naive_kernel(precision: str, capability: tuple) -> None:
    with executor(Interpreter(capability)), nnet.precision(precision):
        for layer in [layer.batch(batch) for table in layers.TABLES.values() for layer in table for batch in (1, 64)]:
            for which in layers.PASSES:
                geometry = layer.stride, layer.pad, layer.dilation, layer.groups
                p = conv2d_problem(which, layer.x_shape, layer.weight_shape, "float32", *geometry)
                assert dispatch.choose(p, "cuda").name != "cuda.naive", p
        for m, n, k in ((1, 1000, 2048), (64, 10, 512), (256, 4096, 25088), (1000, 2048, 64)):
            for a_rows, b_rows in ((True, True), (True, False), (False, True), (False, False)):
                product = MatmulProblem("forward", "float32", m, n, k, a_rows, b_rows)
                assert dispatch.choose(product, "cuda").name != "cuda.naive", product
