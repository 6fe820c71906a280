"""Control flow of LLVM code that Python writes: counted loops with carried values, conditions, lookups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir

_I64 = ir.IntType(64)


def ir_int(value: int) -> ir.Constant:
    """Return an index constant."""
    return ir.Constant(_I64, value)


class Loop:
    """A counted loop whose carried values are phi nodes: ``with`` its body, which `close` ends."""

    def __init__(self, builder: ir.IRBuilder, count: ir.Value, initial: list[ir.Value], name: str):
        self.builder, self.count = builder, count
        self.before = builder.block
        self.body = builder.append_basic_block(name)
        self.after = builder.append_basic_block(name + ".end")
        self.initial = initial

    def __enter__(self) -> Loop:
        b = self.builder
        b.cbranch(b.icmp_signed("<", ir_int(0), self.count), self.body, self.after)
        b.position_at_end(self.body)
        self.index = b.phi(_I64)
        self.index.add_incoming(ir_int(0), self.before)
        self.carried = [b.phi(v.type) for v in self.initial]
        for phi, value in zip(self.carried, self.initial):
            phi.add_incoming(value, self.before)
        return self

    def close(self, values: list[ir.Value]) -> list[ir.Value]:
        """End the body with the next iteration's values; return the values after the loop."""
        b = self.builder
        following = b.add(self.index, ir_int(1))
        self.index.add_incoming(following, b.block)
        for phi, value in zip(self.carried, values):
            phi.add_incoming(value, b.block)
        self.last = last = b.block
        b.cbranch(b.icmp_signed("<", following, self.count), self.body, self.after)
        b.position_at_end(self.after)
        results = []
        for start, value in zip(self.initial, values):
            phi = b.phi(value.type)
            phi.add_incoming(start, self.before)
            phi.add_incoming(value, last)
            results.append(phi)
        return results

    def __exit__(self, *exception: object) -> None:
        """The loop is ended by `close`."""


def ir_keep_rolled(builder: ir.IRBuilder, loop: Loop) -> None:
    """Keep LLVM from unrolling a closed loop, whose body is long enough already."""
    disabled = builder.module.add_metadata(["llvm.loop.unroll.disable"])
    name = builder.module.add_metadata([disabled, disabled])
    name.operands = name, disabled  # LLVM names a loop by a node that holds itself first
    loop.last.terminator.set_metadata("llvm.loop", name)


def ir_grid(values: list[ir.Value], columns: int) -> list[list[ir.Value]]:
    """Return the values in rows of so many columns."""
    return [values[i : i + columns] for i in range(0, len(values), columns)]


def ir_conditionally(builder: ir.IRBuilder, condition: ir.Value, values: list[ir.Value], change: Any) -> list[ir.Value]:
    """Return ``change(values)`` where the condition holds, else the values."""
    before = builder.block
    then, after = builder.append_basic_block("then"), builder.append_basic_block("after")
    builder.cbranch(condition, then, after)
    builder.position_at_end(then)
    changed = change(values)
    last = builder.block
    builder.branch(after)
    builder.position_at_end(after)
    merged = []
    for old, new in zip(values, changed):
        phi = builder.phi(old.type)
        phi.add_incoming(old, before)
        phi.add_incoming(new, last)
        merged.append(phi)
    return merged


def ir_switch(builder: ir.IRBuilder, value: ir.Value, cases: Iterable[int], emit: Callable[[int], None]) -> None:
    """Emit ``emit(case)`` for each case; at run time that of `value` is done, which must be one of them."""
    done, unknown = builder.append_basic_block("done"), builder.append_basic_block("unknown")
    switch = builder.switch(value, unknown)
    for case in cases:
        block = builder.append_basic_block(f"case{case}")
        switch.add_case(ir_int(case), block)
        builder.position_at_end(block)
        emit(case)
        builder.branch(done)
    builder.position_at_end(unknown)
    builder.unreachable()
    builder.position_at_end(done)
