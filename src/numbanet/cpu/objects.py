"""Python objects as arguments and results of machine code: their addresses, for functions that read their fields.

An integer takes longer to hand over than all that such a function does: Python makes its address an object, and Numba
makes that a number again.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import NativeValue, box, intrinsic, register_model, unbox

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)


class _Reference(types.Type):
    """An object of any type."""

    def __init__(self) -> None:
        super().__init__("numbanet.reference")


reference = _Reference()


@register_model(_Reference)
class _Address(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any):
        super().__init__(manager, kind, _I64)


@unbox(_Reference)
def _from_python(kind: Any, value: Any, c: Any) -> NativeValue:
    return NativeValue(c.builder.ptrtoint(value, _I64))


@box(_Reference)
def _to_python(kind: Any, value: Any, c: Any) -> Any:
    pointer = c.builder.inttoptr(value, c.pyapi.pyobj)
    c.pyapi.incref(pointer)
    return pointer


@intrinsic
def address_of(typingctx, x):
    """Return the address of an object."""

    def codegen(context, builder, sig, args):
        return args[0]

    return types.int64(x), codegen


@intrinsic
def object_at(typingctx, address):
    """Return the object at an address."""

    def codegen(context, builder, sig, args):
        return args[0]

    return reference(types.int64), codegen


@intrinsic
def in_context(typingctx, variable):
    """Return the address of the value of a context variable, which has a default; the caller has the GIL."""

    def codegen(context, builder, sig, args):
        api = context.get_python_api(builder)
        slot = builder.alloca(api.pyobj)
        kind = ir.FunctionType(_I32, [api.pyobj, api.pyobj, api.pyobj.as_pointer()])
        function = api._get_function(kind, "PyContextVar_Get")
        builder.call(function, [builder.inttoptr(args[0], api.pyobj), api.get_null_object(), slot])
        value = builder.load(slot)
        api.decref(value)  # the context, or the variable, has it
        return builder.ptrtoint(value, _I64)

    return types.int64(types.int64), codegen


@intrinsic
def same_integer(typingctx, a, b):
    """Return whether two objects of type int are equal, by their addresses; the caller has the GIL."""

    def codegen(context, builder, sig, args):
        api = context.get_python_api(builder)
        kind = ir.FunctionType(_I32, [api.pyobj, api.pyobj, _I32])
        function = api._get_function(kind, "PyObject_RichCompareBool")
        pair = [builder.inttoptr(address, api.pyobj) for address in args]
        return builder.icmp_signed("==", builder.call(function, [*pair, ir.Constant(_I32, 2)]), ir.Constant(_I32, 1))

    return types.boolean(types.int64, types.int64), codegen
