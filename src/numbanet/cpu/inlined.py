"""Functions that exist only inside kernels: the compiler of kernels, but for what Numba does before they are inlined.

Numba optimises every function and makes machine code of it, even of one that is only ever inlined; then the kernel that
took it in is optimised as a whole once more. Here such a function stays as it was lowered, and the kernel's compilation
is the first and only one that it goes through.
"""

from __future__ import annotations

from typing import Any

from numba import _dynfunc
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import _LowerResult
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

from numbanet.cpu.compiler import KernelCompiler, Library


class _Source(Library):
    """A library that is linked into others, and never becomes machine code."""

    loops = False
    """Whether the function has loops, which all passes go through: rows of softmax took a fifth more time otherwise."""

    def _optimize_functions(self, ll_module: Any) -> None:
        if self.loops:
            JITCodeLibrary._optimize_functions(self, ll_module)
        else:
            super()._optimize_functions(ll_module)

    def _optimize_final_module(self) -> None:
        """Leave it to those that link it."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Lower a function, and let others call it."""

    _name = "inlined_lowering"

    def run_pass(self, state: Any) -> bool:
        target = state.targetctx
        state.library = _Source(target.codegen(), state.func_id.func_qualname)
        state.library.loops = bool(compute_cfg_from_blocks(state.func_ir.blocks).loops())
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        described = lowered.fndesc
        # What a dispatcher keeps for a function that Python can't call.
        nothing = _dynfunc.make_function(
            described.lookup_module(), described.qualname.split(".")[-1], "", 0, lowered.env, (state.library,)
        )
        target.insert_user_function(nothing, described, [state.library])
        state["cr"] = _LowerResult(described, lowered.call_helper, nothing, lowered.env)
        return True


class InlinedCompiler(KernelCompiler):
    """The pipeline of kernels with that lowering."""

    replaced = {NativeLowering: _Lowering}
