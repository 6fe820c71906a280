"""The PTX instructions of capability 9.0 alone (sm_90a): products of warpgroups, tensor copies, and what orders them.

One function an instruction, as in `numbanet.cuda.ptx.instructions`. A *tensor copy* brings a box of a tensor to shared
memory: one thread starts it, the copy engine computes every address. What the tensor and the box are, a *map* says, 128
opaque bytes in global memory: see `numbanet.cuda.tensor_map`. A *barrier* (mbarrier) is 8 bytes of shared memory. It
counts arrivals, and the bytes that copies have brought; when both are complete its phase ends, and the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from numbanet.cuda.ptx.instructions import assembly, statement

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32, _VOID = ir.FloatType(), ir.VoidType()

# Products of warpgroups (9.7.16 wgmma) --------------------------------------------------------------------------------

wgmma_fence = statement(
    "wgmma_fence", "wgmma.fence.sync.aligned;", "Order what was done to registers before the products that follow."
)
wgmma_commit = statement(
    "wgmma_commit", "wgmma.commit_group.sync.aligned;", "Close the group of products that were started."
)
fence_async = statement(
    "fence_async", "fence.proxy.async.shared::cta;",
    "Let the asynchronous proxy, which reads a product's operands, see what this thread wrote to shared memory.",
)  # fmt: skip


def wgmma_wait(pending: int) -> Callable:
    """Make the function that waits until at most `pending` groups of products are under way."""
    return statement(
        f"wgmma_wait{pending}", f"wgmma.wait_group.sync.aligned {pending};", f"Wait for all but {pending} groups."
    )


def _on_registers(builder: ir.IRBuilder, context: Any, kind: Any, total: ir.Value, text: str, count: int,
                  constraints: Sequence[str] = (), operands: Sequence[ir.Value] = ()) -> None:  # fmt: skip
    """Call a piece of assembly that changes an array of float32 in registers, $0 and those that follow."""
    data = context.make_array(kind)(context, builder, total).data
    places = [builder.gep(data, [ir.Constant(_I32, i)]) for i in range(count)]
    values = [builder.load(place) for place in places]
    letters = ",".join(["=f"] * count + [str(i) for i in range(count)] + [*constraints])
    struct = assembly(builder, ir.LiteralStructType([_F32] * count), text, letters, [*values, *operands])
    for i, place in enumerate(places):
        builder.store(builder.extract_value(struct, i), place)


def wgmma_results(columns: int) -> Callable:
    """Make ``wait(total)``: wait for all products; only what comes from it may be read.

    Without the registers in its hands, a compiler might read them before.
    """
    count = columns // 2

    def wait(typingctx, total):
        def codegen(context, builder, sig, args):
            text = "wgmma.wait_group.sync.aligned 0;"
            _on_registers(builder, context, sig.args[0], args[0], text, count, ["~{memory}"])
            return context.get_dummy_value()

        return types.void(total), codegen

    wait.__name__ = f"wgmma_results{columns}"
    return intrinsic(wait)


def wgmma(kind: str, columns: int, transposed_a: bool, transposed_b: bool) -> Callable:
    """Make ``multiply(total, a, b)``: a warpgroup starts total += a b, where a is 64 x depth and b depth x `columns`.

    Parameters
    ----------
    kind : {"bf16", "f16", "tf32"}
        What the operands are; the depth is 16, of "tf32" 8.
    columns : int
        A multiple of 8, at most 256.
    transposed_a, transposed_b : bool
        The operand lies in shared memory with neighbouring rows (of b: columns) side by side, not neighbours along the
        reduction; only operands of 16 bits may.

    Notes
    -----
    `total` is a local array of columns / 2 float32, laid out as the PTX ISA says under "Register Fragments for
    wgmma.mma_async.m64nNk16"; nothing may touch it until the product has been waited for. a and b are descriptors of
    shared memory (uint64: "Matrix Descriptor Format").
    """
    count, wide = columns // 2, kind == "tf32"
    if wide and (transposed_a or transposed_b):
        raise ValueError("kind must be 'bf16' or 'f16': only 16-bit operands may be transposed, got 'tf32'")
    shape = f"m64n{columns}k{8 if wide else 16}"
    flags = "1, 1" if wide else f"1, 1, {int(transposed_a)}, {int(transposed_b)}"

    def multiply(typingctx, total, a, b):
        def codegen(context, builder, sig, args):
            registers = ", ".join(f"${i}" for i in range(count))
            text = (
                f"wgmma.mma_async.sync.aligned.{shape}.f32.{kind}.{kind} {{{registers}}}, "
                f"${2 * count}, ${2 * count + 1}, 1, {flags};"
            )
            _on_registers(builder, context, sig.args[0], args[0], text, count, ["l", "l"], args[1:])
            return context.get_dummy_value()

        return types.void(total, types.uint64, types.uint64), codegen

    multiply.__name__ = f"wgmma_{shape}_{kind}"
    return intrinsic(multiply)


def fewer_registers(count: int) -> Callable:
    """Make the function by which a warpgroup keeps `count` registers a thread, and hands the others on (setmaxnreg)."""
    text = f"setmaxnreg.dec.sync.aligned.u32 {count};"
    return statement(f"fewer_registers{count}", text, f"Keep {count} registers a thread.")


def more_registers(count: int) -> Callable:
    """Make the function by which a warpgroup waits for `count` registers a thread, which others have handed on."""
    text = f"setmaxnreg.inc.sync.aligned.u32 {count};"
    return statement(f"more_registers{count}", text, f"Take {count} registers a thread.")


@intrinsic
def elect(typingctx):
    """Return 1 to one thread of a warp, and 0 to the others; all must ask (9.7.13 elect.sync)."""

    def codegen(context, builder, sig, args):
        text = "{ .reg .pred p; elect.sync _|p, -1; selp.b32 $0, 1, 0, p; }"
        return assembly(builder, _I32, text, "=r", [])

    return types.int32(), codegen


# Barriers (9.7.13.15 mbarrier); an address is a shared address, a multiple of 8 --------------------------------------

fence_barriers = statement(
    "fence_barriers", "fence.mbarrier_init.release.cluster;",
    "Let the copy engine see the barriers that this thread initialised.",
)  # fmt: skip


def _on_barrier(name: str, text: str, doc: str) -> Callable:
    """Make the function of an instruction that takes a barrier's address and a number."""

    def emit(typingctx, barrier, number):
        def codegen(context, builder, sig, args):
            assembly(builder, _VOID, text, "r,r,~{memory}", args)
            return context.get_dummy_value()

        return types.void(types.int32, types.int32), codegen

    emit.__name__, emit.__doc__ = name, doc
    return intrinsic(emit)


barrier_start = _on_barrier(
    "barrier_start", "mbarrier.init.shared::cta.b64 [$0], $1;",
    "Initialise a barrier whose phases end after a number of arrivals.",
)  # fmt: skip
barrier_expect = _on_barrier(
    "barrier_expect", "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;",
    "Arrive, and let the phase wait for a number of bytes from copies.",
)  # fmt: skip


@intrinsic
def barrier_arrive(typingctx, barrier):
    """Arrive at a barrier."""

    def codegen(context, builder, sig, args):
        assembly(builder, _VOID, "mbarrier.arrive.shared::cta.b64 _, [$0];", "r,~{memory}", args)
        return context.get_dummy_value()

    return types.void(types.int32), codegen


@intrinsic
def barrier_passed(typingctx, barrier, parity):
    """Return 1 if the phase of a parity (0: the first, the third, ...) has ended, 0 if not, after a while of waiting.

    Of a barrier that has just been initialised, the phase of parity 1 counts as ended.
    """

    def codegen(context, builder, sig, args):
        text = (
            "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [$1], $2; selp.b32 $0, 1, 0, p; }"
        )
        return assembly(builder, _I32, text, "=r,r,r,~{memory}", args)

    return types.int32(types.int32, types.int32), codegen


# Tensor copies (9.7.9.27 cp.async.bulk.tensor) ------------------------------------------------------------------------


def _map_address(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.ptrtoint(value, _I64)


@intrinsic
def fence_map(typingctx, tensor):
    """Let the copy engine see a map that the host wrote to global memory (9.7.13.4 fence.proxy.tensormap)."""

    def codegen(context, builder, sig, args):
        text = "fence.proxy.tensormap::generic.acquire.sys [$0], 128;"
        assembly(builder, _VOID, text, "l,~{memory}", [_map_address(builder, args[0])])
        return context.get_dummy_value()

    return types.void(tensor), codegen


_COPY = "shared::cluster.global.{}.mbarrier::complete_tx::bytes"


@intrinsic
def copy_box(typingctx, target, tensor, at, barrier):
    """Start to copy a box to a shared address; what lies outside of the tensor becomes zero.

    `tensor` is the map of a tensor of three dimensions, and `at` the box's first element, innermost coordinate first.
    All of the box's bytes count for the barrier.
    """

    def codegen(context, builder, sig, args):
        target, tensor, at, barrier = args
        corner = [builder.extract_value(at, i) for i in range(3)]
        text = f"cp.async.bulk.tensor.3d.{_COPY.format('tile')} [$0], [$1, {{$2, $3, $4}}], [$5];"
        values = [target, _map_address(builder, tensor), *corner, barrier]
        assembly(builder, _VOID, text, "r,l,r,r,r,r,~{memory}", values)
        return context.get_dummy_value()

    return types.void(types.int32, tensor, types.UniTuple(types.int32, 3), types.int32), codegen


@intrinsic
def copy_pixels(typingctx, target, tensor, at, offset, barrier):
    """Start to copy some channels of many pixels, one after the other, to a shared address (mode im2col).

    `tensor` is the map of images (N, H, W, C), and `at` is (channel, w, h, n) of the first pixel. The pixels are those
    that the map's window and steps say, in the order of memory; `offset`, a pair (w, h) from 0 to 255, is added to each
    place. What lies outside of an image becomes zero. All bytes count for the barrier.
    """

    def codegen(context, builder, sig, args):
        target, tensor, at, offset, barrier = args
        corner = [builder.extract_value(at, i) for i in range(4)]
        shift = [builder.trunc(builder.extract_value(offset, i), _I16) for i in range(2)]
        text = (
            f"cp.async.bulk.tensor.4d.{_COPY.format('im2col')} [$0], [$1, {{$2, $3, $4, $5}}], [$6], {{$7, $8}};"
        )
        values = [target, _map_address(builder, tensor), *corner, barrier, *shift]
        assembly(builder, _VOID, text, "r,l,r,r,r,r,r,h,h,~{memory}", values)
        return context.get_dummy_value()

    pair, four = types.UniTuple(types.int32, 2), types.UniTuple(types.int32, 4)
    return types.void(types.int32, tensor, four, pair, types.int32), codegen
