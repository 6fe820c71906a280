"""One function for each PTX instruction that kernels use and that Python has no word for.

The instructions are described in NVIDIA's "Parallel Thread Execution ISA"; the section of each is given. A *shared
address* is a 32-bit offset into the block's shared memory, as `shared_address` returns it. Indices count elements and
may not be negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_F32 = ir.FloatType()
_VOID = ir.VoidType()


def assembly(builder: ir.IRBuilder, result: ir.Type, text: str, constraints: str, args: Sequence[ir.Value],
             effect: bool = True) -> ir.Value:  # fmt: skip
    """Call a piece of assembly.

    `effect` keeps it where it stands, and where its result is not used. An instruction of which PTX says ``.sync`` is
    for all threads of a warp together: the compiler may not move it to where only some of them come by.
    """
    kind = ir.FunctionType(result, [a.type for a in args])
    attributes = ("convergent",) if ".sync" in text else ()
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=effect), list(args), attrs=attributes)


def _address(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value, index: ir.Value) -> ir.Value:
    """Return the address of an element of a pointer or of a C-contiguous array."""
    data = context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
    return builder.gep(data, [index])


def _element(kind: Any) -> Any:
    """Return the element type of a pointer or an array."""
    return kind.dtype


def _tuple_of(context: Any, builder: ir.IRBuilder, kind: Any, values: Sequence[ir.Value]) -> ir.Value:
    out = cgutils.get_null_value(context.get_value_type(kind))
    for i, value in enumerate(values):
        out = builder.insert_value(out, value, i)
    return out


def _fields(builder: ir.IRBuilder, struct: ir.Value, count: int) -> list[ir.Value]:
    return [builder.extract_value(struct, i) for i in range(count)]


@intrinsic
def zero(typingctx, source):
    """Return zero, of the type that a pointer or an array holds."""

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(sig.return_type), 0)

    return _element(source)(source), codegen


# Addresses ------------------------------------------------------------------------------------------------------------


@intrinsic
def pointer(typingctx, array):
    """Return a pointer to the first element of a shared or local array: indexing it costs no test for negative ones."""

    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def pointer_in(typingctx, like, table, index):
    """Return the pointer, of the type of `like`, to global memory whose address a table of int64 holds."""

    def codegen(context, builder, sig, args):
        element = context.get_value_type(like.dtype)
        address = builder.load(builder.gep(args[1], [args[2]]))
        return builder.addrspacecast(builder.inttoptr(address, element.as_pointer(1)), element.as_pointer())

    return like(like, table, index), codegen


@intrinsic
def shared_address(typingctx, array):
    """Return the shared address of an array's first element."""

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        shared = builder.addrspacecast(builder.bitcast(data, _I8.as_pointer()), _I8.as_pointer(3))
        return builder.ptrtoint(shared, _I32)

    return types.int32(array), codegen


@intrinsic
def load_shared(typingctx, address):
    """Return the 32 bits at a shared address."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.inttoptr(args[0], _I32.as_pointer(3)), align=4)

    return types.uint32(types.int32), codegen


@intrinsic
def store_shared(typingctx, address, value):
    """Store 32 bits to a shared address."""

    def codegen(context, builder, sig, args):
        builder.store(args[1], builder.inttoptr(args[0], _I32.as_pointer(3)), align=4)
        return context.get_dummy_value()

    return types.void(types.int32, types.uint32), codegen


# Atomic addition of integers (9.7.13.5 atom); of floats there is none: chance would order the additions --------------


@intrinsic
def add_at(typingctx, target, index, value):
    """Add an int32 to an element of global memory, and return what it was before."""

    def codegen(context, builder, sig, args):
        at = builder.addrspacecast(builder.gep(args[0], [args[1]]), _I32.as_pointer(1))
        return builder.atomic_rmw("add", at, args[2], "monotonic")

    return types.int32(target, types.int32, types.int32), codegen


# 128-bit accesses (9.7.9.8 ld, 9.7.9.12 st: .v4) ----------------------------------------------------------------------


def _vector_load(lanes: int) -> Callable:
    def load(typingctx, source, index):
        kind = _element(source)
        size = kind.bitwidth // 8 * lanes

        def codegen(context, builder, sig, args):
            vector = ir.VectorType(context.get_value_type(kind), lanes)
            at = _address(context, builder, sig.args[0], *args)
            value = builder.load(builder.bitcast(at, vector.as_pointer()), align=size)
            parts = [builder.extract_element(value, ir.Constant(_I32, i)) for i in range(lanes)]
            return _tuple_of(context, builder, sig.return_type, parts)

        return types.UniTuple(kind, lanes)(source, index), codegen

    load.__name__ = f"load{lanes}"
    load.__doc__ = f"Load {lanes} elements from an index on at once; their address must be a multiple of their size."
    return intrinsic(load)


def _vector_store(lanes: int) -> Callable:
    def store(typingctx, target, index, values):
        kind = _element(target)
        size = kind.bitwidth // 8 * lanes

        def codegen(context, builder, sig, args):
            vector = ir.VectorType(context.get_value_type(kind), lanes)
            value = ir.Constant(vector, ir.Undefined)
            for i, part in enumerate(_fields(builder, args[2], lanes)):
                value = builder.insert_element(value, part, ir.Constant(_I32, i))
            at = _address(context, builder, sig.args[0], *args[:2])
            builder.store(value, builder.bitcast(at, vector.as_pointer()), align=size)
            return context.get_dummy_value()

        return types.void(target, index, types.UniTuple(kind, lanes)), codegen

    store.__name__ = f"store{lanes}"
    store.__doc__ = f"Store {lanes} elements from an index on at once; their address must be a multiple of their size."
    return intrinsic(store)


load2, load4 = _vector_load(2), _vector_load(4)
store2, store4 = _vector_store(2), _vector_store(4)


# Asynchronous copies from global to shared memory (9.7.9.25.3 cp.async) -----------------------------------------------


@intrinsic
def copy_async16(typingctx, target, source, index, count):
    """Start to copy 16 bytes from an element of global memory to a shared address.

    Only the first `count` bytes are read, the rest becomes zero; with 0 nothing is read, and the index may be any.
    """

    def codegen(context, builder, sig, args):
        target, source, index, count = args
        at = _address(context, builder, sig.args[1], source, index)
        at = builder.addrspacecast(builder.bitcast(at, _I8.as_pointer()), _I8.as_pointer(1))
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        assembly(builder, _VOID, text, "r,l,r,~{memory}", [target, builder.ptrtoint(at, _I64), count])
        return context.get_dummy_value()

    return types.void(types.int32, source, index, types.int32), codegen


def statement(name: str, text: str, doc: str) -> Callable:
    """Make the function of an instruction that takes no register and returns nothing."""

    def emit(typingctx):
        def codegen(context, builder, sig, args):
            assembly(builder, _VOID, text, "~{memory}", [])
            return context.get_dummy_value()

        return types.void(), codegen

    emit.__name__, emit.__doc__ = name, doc
    return intrinsic(emit)


copy_commit = statement("copy_commit", "cp.async.commit_group;", "Close the group of copies that were started.")


def copy_wait(pending: int) -> Callable:
    """Make the function that waits until at most `pending` groups of this thread's copies are under way."""
    return statement(f"copy_wait{pending}", f"cp.async.wait_group {pending};", f"Wait for all but {pending} groups.")


# Matrix fragments (9.7.15.5.15 ldmatrix, 9.7.15.5.14 mma) -------------------------------------------------------------


def _load_matrices(transposed: bool) -> Callable:
    modifier = ".trans" if transposed else ""

    def load(typingctx, address):
        def codegen(context, builder, sig, args):
            text = f"ldmatrix.sync.aligned.m8n8.x4{modifier}.shared.b16 {{$0, $1, $2, $3}}, [$4];"
            struct = assembly(builder, ir.LiteralStructType([_I32] * 4), text, "=r,=r,=r,=r,r,~{memory}", args)
            return _tuple_of(context, builder, sig.return_type, _fields(builder, struct, 4))

        return types.UniTuple(types.uint32, 4)(types.int32), codegen

    load.__name__ = "load_matrices_transposed" if transposed else "load_matrices"
    load.__doc__ = """Load four 8 x 8 matrices of 16-bit elements; thread t gives row t % 8 of matrix t / 8.

    Thread t receives, of each matrix, the elements 2 (t % 4) and 2 (t % 4) + 1 of row t / 4 (transposed: column t / 4).
    """
    return intrinsic(load)


load_matrices, load_matrices_transposed = _load_matrices(False), _load_matrices(True)


def _multiply_accumulate(kind: str, depth: int) -> Callable:
    instruction = f"mma.sync.aligned.m16n8k{depth}.row.col.f32.{kind}.{kind}.f32"

    def multiply(typingctx, a, b, c):
        four, two = types.UniTuple(types.uint32, 4), types.UniTuple(types.uint32, 2)
        accumulator = types.UniTuple(types.float32, 4)

        def codegen(context, builder, sig, args):
            values = _fields(builder, args[0], 4) + _fields(builder, args[1], 2) + _fields(builder, args[2], 4)
            text = (
                f"{instruction} {{$0, $1, $2, $3}}, {{$4, $5, $6, $7}}, {{$8, $9}}, {{$10, $11, $12, $13}};"
            )
            constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
            struct = assembly(builder, ir.LiteralStructType([_F32] * 4), text, constraints, values, effect=False)
            return _tuple_of(context, builder, sig.return_type, _fields(builder, struct, 4))

        return accumulator(four, two, accumulator), codegen

    multiply.__name__ = f"multiply_{kind}"
    multiply.__doc__ = f"""Return a b + c of a warp: a is 16 x {depth}, b {depth} x 8, both {kind}; c is 16 x 8 float32.

    The elements that each thread holds are given in the PTX ISA, "Matrix Fragments for mma.m16n8k{depth}".
    """
    return intrinsic(multiply)


multiply_tf32 = _multiply_accumulate("tf32", 8)
multiply_bf16 = _multiply_accumulate("bf16", 16)
multiply_f16 = _multiply_accumulate("f16", 16)


# Conversions (9.7.9.21 cvt) and bits ----------------------------------------------------------------------------------


def _convert(name: str, text: str, constraints: str, result: Any, takes: Sequence[Any], doc: str) -> Callable:
    kinds = {types.uint32: _I32, types.uint16: _I16, types.float32: _F32}

    def codegen(context, builder, sig, args):
        return assembly(builder, kinds[result], text, constraints, args, effect=False)

    def one(typingctx, x):
        return result(*takes), codegen

    def two(typingctx, x, y):
        return result(*takes), codegen

    function = one if len(takes) == 1 else two
    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


round_tf32 = _convert(
    "round_tf32", "cvt.rna.tf32.f32 $0, $1;", "=r,f", types.uint32, [types.float32],
    "Round to TF32 (10 bits of fraction), ties away from zero; the tensor core would cut the rest off.",
)  # fmt: skip
pack_bf16 = _convert(
    "pack_bf16", "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", types.uint32, [types.float32, types.float32],
    "Round two numbers to bfloat16; the first becomes the low half.",
)  # fmt: skip
pack_f16 = _convert(
    "pack_f16", "cvt.rn.f16x2.f32 $0, $2, $1;", "=r,f,f", types.uint32, [types.float32, types.float32],
    "Round two numbers to float16; the first becomes the low half.",
)  # fmt: skip


@intrinsic
def float_bits(typingctx, x):
    """Return the bits of a float32."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], _I32)

    return types.uint32(types.float32), codegen


@intrinsic
def bits_float(typingctx, bits):
    """Return the float32 of some bits."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], _F32)

    return types.float32(types.uint32), codegen


# Warps (9.7.9.6 shfl.sync, 9.7.13.2 bar.warp.sync) --------------------------------------------------------------------


def _shuffle(mode: str, clamp: int) -> Callable:
    def shuffle(typingctx, x, by):
        if x not in (types.float32, types.int32, types.uint32, types.float64, types.int64):
            raise TypeError(f"a shuffle moves 32 or 64 bits, got {x}")
        text = f"shfl.sync.{mode}.b32 $0, $1, $2, {clamp}, -1;"

        def codegen(context, builder, sig, args):
            if x.bitwidth == 32:
                bits = assembly(builder, _I32, text, "=r,r,r", [builder.bitcast(args[0], _I32), args[1]])
                return builder.bitcast(bits, args[0].type)
            bits, half = builder.bitcast(args[0], _I64), ir.Constant(_I64, 32)
            low, high = (
                builder.zext(assembly(builder, _I32, text, "=r,r,r", [builder.trunc(part, _I32), args[1]]), _I64)
                for part in (bits, builder.lshr(bits, half))
            )
            return builder.bitcast(builder.or_(low, builder.shl(high, half)), args[0].type)

        return x(x, types.int32), codegen

    shuffle.__name__ = f"shuffle_{mode}"
    shuffle.__doc__ = {
        "bfly": "Return the value of the thread whose lane number differs by the bits of `by`.",
        "down": "Return the value of the lane `by` above (the own one where there is none).",
        "idx": "Return the value of lane `by`.",
    }[mode]
    return intrinsic(shuffle)


shuffle_bfly, shuffle_down, shuffle_idx = _shuffle("bfly", 31), _shuffle("down", 31), _shuffle("idx", 31)
