"""Transpose a square block of elements in registers."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.vector import ir_load, ir_masked_load, ir_masked_store, ir_store, ir_tail_mask, vector_of


def ir_transpose(builder: ir.IRBuilder, block: list[ir.Value]) -> list[ir.Value]:
    """Return the columns of a square block, given its rows: Eklundh's exchange of ever smaller off-diagonal halves."""
    block, count = list(block), len(block)
    index = ir.VectorType(ir.IntType(32), count)
    half = count // 2
    while half:
        low = ir.Constant(index, [j if not j & half else count + j - half for j in range(count)])
        high = ir.Constant(index, [j + half if not j & half else count + j for j in range(count)])
        for r in range(count):
            if not r & half:
                a, b = block[r], block[r + half]
                block[r] = builder.shuffle_vector(a, b, low)
                block[r + half] = builder.shuffle_vector(a, b, high)
        half //= 2
    return block


def number(value: int) -> ir.Constant:
    """Return an index constant."""
    return ir.Constant(ir.IntType(64), value)


@intrinsic
def transpose_tile(typingctx, source, i, step, rows, columns, destination, o, pitch):
    """Do ``destination[o + c * pitch + r] = source[i + r * step + c]`` for r < rows and c < columns.

    Both counts are at most the lanes of a vector; memory outside is not touched. Where they are constants, the masks
    vanish.
    """
    vec, i64 = vector_of(source.dtype), types.int64

    def codegen(context, builder, sig, args):
        source_at, i, step, rows, columns, destination_at, o, pitch = args

        def masks(limit: ir.Value, other: ir.Value) -> list[ir.Value]:
            lanes = ir_tail_mask(builder, other, vec.lanes)
            none = ir.Constant(lanes.type, None)
            return [builder.select(builder.icmp_signed("<", number(r), limit), lanes, none) for r in range(vec.lanes)]

        spots = [builder.gep(source_at, [builder.add(i, builder.mul(step, number(r)))]) for r in range(vec.lanes)]
        block = [ir_masked_load(builder, p, vec, mask) for p, mask in zip(spots, masks(rows, columns))]
        spots = [builder.gep(destination_at, [builder.add(o, builder.mul(pitch, number(c)))]) for c in range(vec.lanes)]
        for column, p, mask in zip(ir_transpose(builder, block), spots, masks(columns, rows)):
            ir_masked_store(builder, column, p, vec, mask)
        return context.get_dummy_value()

    return types.void(source, i64, i64, i64, i64, destination, i64, i64), codegen


@intrinsic
def transpose_block(typingctx, source, i, step, rows, columns, destination, o, pitch):
    """Write ``destination[o + c * pitch + r] = source[i + r * step + c]`` for a square block of lanes x lanes elements.

    Only `rows` rows and `columns` columns are read, and `columns` rows written; rows beyond `rows` count as zero.
    """
    vec = vector_of(source.dtype)
    i64 = types.int64
    sig = types.void(source, i64, i64, i64, i64, destination, i64, i64)

    def codegen(context, builder, sig, args):
        source_pointer, start, step, rows, columns, destination_pointer, out, pitch = args
        count = vec.lanes
        spots = [builder.gep(source_pointer, [builder.add(start, builder.mul(step, number(r)))]) for r in range(count)]
        least = builder.select(builder.icmp_signed("<", rows, columns), rows, columns)
        with builder.if_else(builder.icmp_signed("<=", number(count), least)) as (whole, part):
            with whole:  # without masks, which take as long as all the rest
                loaded = [ir_load(builder, spot, vec) for spot in spots]
                after_whole = builder.block
            with part:
                every = ir_tail_mask(builder, columns, count)
                none = ir.Constant(every.type, None)
                masked = []
                for r, spot in enumerate(spots):
                    mask = builder.select(builder.icmp_signed("<", number(r), rows), every, none)
                    masked.append(ir_masked_load(builder, spot, vec, mask))
                after_part = builder.block
        block = []
        for a, b in zip(loaded, masked):
            block.append(builder.phi(a.type))
            block[-1].add_incoming(a, after_whole)
            block[-1].add_incoming(b, after_part)
        for c, column in enumerate(ir_transpose(builder, block)):
            spot = builder.gep(destination_pointer, [builder.add(out, builder.mul(pitch, number(c)))])
            with builder.if_then(builder.icmp_signed("<", number(c), columns)):
                ir_store(builder, column, spot, vec)
        return context.get_dummy_value()

    return sig, codegen
