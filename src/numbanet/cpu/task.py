"""One task of a launch: what the drivers of kernels, which see integers only, read of Python objects, and the call."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.isa import is_arm, is_x86

MAX_POINTERS = 10
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_X86_FLUSH = 0x8040  # MXCSR: flush results to zero (bit 15), read denormals as zero (bit 6)
_ARM_FLUSH = 1 << 24  # FPCR: both
# Where objects keep what the driver reads, in bytes from their address: a tuple its items; an array its data, the
# descriptor of its dtype and its flags (NumPy's C interface, after the object's head).
ITEMS = tuple.__basicsize__
DATA, _DTYPE, _FLAGS = (object.__basicsize__ + field for field in (0, 40, 48))
_TYPE = object.__basicsize__ - ir.IntType(64).width // 8
_CONTIGUOUS = 1


def _field(builder, base, distance):
    """Load the 64-bit number that lies `distance` bytes after an address."""
    spot = builder.add(base, ir.Constant(_I64, distance))
    return builder.load(builder.inttoptr(spot, _I64.as_pointer()))


@intrinsic
def word(typingctx, base, distance):
    """Return the 64-bit number that lies `distance` bytes after an address."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.inttoptr(builder.add(*args), _I64.as_pointer()))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _call_task(typingctx, address, count, items, integers, task):
    """Call kernel machine code: ``kernel(task, integers, data of the first array, ..., data of the last)``.

    `items` is the address of the first of `count` references to arrays, `integers` that of the first integer.
    """

    def codegen(context, builder, sig, args):
        address, count, items, integers, task = args
        done = builder.append_basic_block("done")
        unknown = builder.append_basic_block("unknown")
        cases = builder.switch(count, unknown)
        for number in range(MAX_POINTERS + 1):
            here = builder.append_basic_block(f"pointers{number}")
            cases.add_case(ir.Constant(_I64, number), here)
            builder.position_at_end(here)
            pointers = [_field(builder, _field(builder, items, 8 * j), DATA) for j in range(number)]
            kind = ir.FunctionType(ir.VoidType(), [_I64] * (2 + number))
            builder.call(builder.inttoptr(address, kind.as_pointer()), [task, integers, *pointers])
            builder.branch(done)
        builder.position_at_end(unknown)
        builder.unreachable()
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), codegen


def _x86_control(builder, instruction, slot):
    """Read or write MXCSR, by the memory of a slot."""
    raw = builder.bitcast(slot, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [raw.type])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{instruction}"), [raw])


def _arm_control(builder, value):
    """Write FPCR."""
    kind = ir.FunctionType(ir.VoidType(), [_I64])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.set.fpcr"), [value])


@intrinsic
def _flush_denormals(typingctx):
    """Make this thread treat denormals as zero; return the former state of its control register."""

    def codegen(context, builder, sig, args):
        if is_x86(context):
            slot = cgutils.alloca_once(builder, _I32)
            _x86_control(builder, "stmxcsr", slot)
            former = builder.load(slot)
            builder.store(builder.or_(former, ir.Constant(_I32, _X86_FLUSH)), slot)
            _x86_control(builder, "ldmxcsr", slot)
            return builder.zext(former, _I64)
        if is_arm(context):
            kind = ir.FunctionType(_I64, [])
            former = builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.get.fpcr"), [])
            _arm_control(builder, builder.or_(former, ir.Constant(_I64, _ARM_FLUSH)))
            return former
        return ir.Constant(_I64, 0)

    return types.uint64(), codegen


@intrinsic
def _restore_denormals(typingctx, former):
    """Put the control register back."""

    def codegen(context, builder, sig, args):
        if is_x86(context):
            _x86_control(builder, "ldmxcsr", cgutils.alloca_once_value(builder, builder.trunc(args[0], _I32)))
        elif is_arm(context):
            _arm_control(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


@device
def run_task(address, count, items, integers, task):
    former = _flush_denormals()
    _call_task(address, count, items, integers, task)
    _restore_denormals(former)


@device
def run_both(address, count, items, integers, task, then):
    """Run a task, and what follows it: `then` is 0, or the address of three words of the kernel that does.

    They are the address of its machine code, the number of its buffers, which stand behind the first kernel's, and the
    address of its integers.
    """
    run_task(address, count, items, integers, task)
    if then != 0:
        run_task(word(then, 0), word(then, 8), items + 8 * count, word(then, 16), task)


@device
def buffers(count, then):
    """Return how many buffers a launch has, with those of what follows its tasks."""
    return count if then == 0 else count + word(then, 8)


@device
def fits(expected, count, items):
    """Return whether every buffer is a C-contiguous array of its pointer's dtype."""
    kind = word(expected, 0)
    for j in range(count):
        array = word(items, 8 * j)
        if word(array, _TYPE) != kind or word(array, _DTYPE) != word(expected, 8 * (j + 1)):
            return False
        if not word(array, _FLAGS) & _CONTIGUOUS:
            return False
    return True
