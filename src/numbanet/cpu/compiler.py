"""Numba's compiler without what kernels have no use for: half of the time of compiling them is Numba's own Python.

Its pipeline looks for array expressions and for overloads to inline, which functions of pointers don't have, and for
closures, which few have; and it asks again and again for the type of the same operation on the same types, which takes
a millisecond each time, as every template that any part of Numba registered is tried.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

import llvmlite.binding as llvm
from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import (
    InlineOverloads,
    IRLegalization,
    NativeLowering,
    NopythonRewrites,
    NopythonTypeInference,
)
from numba.core.untyped_passes import InlineClosureLikes

from numbanet import fingerprint


class _Remembering:
    """A typing context that answers the same question once; all else is up to the context behind it."""

    def __init__(self, context: Any):
        self._context, self._answers = context, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, function: Any, args: tuple, kws: dict) -> Any:
        """Return the signature of a call, or None; calls that compile, or name arguments, are asked for each time."""
        if kws or isinstance(function, types.Dispatcher):
            return self._context.resolve_function_type(function, args, kws)
        question = function, tuple(args)
        if question not in self._answers:
            self._answers[question] = self._context.resolve_function_type(function, args, kws)
        return self._answers[question]


@register_pass(mutates_CFG=True, analysis_only=False)
class _Inference(NopythonTypeInference):
    """Type inference that remembers, within one function."""

    _name = "kernel_type_inference"

    def run_pass(self, state: Any) -> bool:
        context = state.typingctx
        state.typingctx = _Remembering(context)
        try:
            return super().run_pass(state)
        finally:
            state.typingctx = context


@register_pass(mutates_CFG=False, analysis_only=True)
class _Legalization(IRLegalization):
    """Say where each variable is used for the last time, if one of them has references that are to be counted.

    It would be set to zero there, and LLVM would have to find out that nobody looks at that.
    """

    _name = "kernel_legalization"

    def run_pass(self, state: Any) -> bool:
        models = state.targetctx.data_model_manager
        if any(models[kind].contains_nrt_meminfo() for kind in {*state.typemap.values()}):
            return super().run_pass(state)
        return False


class KernelCompiler(CompilerBase):
    """The pipeline of Numba's compiler, for this package's functions on pointers, numbers and vectors.

    Functions of others go through all of it: they may work on arrays, and call overloads that exist inlined only.
    """

    replaced: dict[type, type] = {}
    """Passes and what runs in their places."""

    def define_pipelines(self) -> list[PassManager]:
        """Return the one pipeline."""
        replaced, left_out = dict(self.replaced), set[type]()
        if fingerprint.is_known(self.state.func_id.func):
            replaced |= {NopythonTypeInference: _Inference, IRLegalization: _Legalization}
            left_out = {InlineOverloads, NopythonRewrites}
            if not any(isinstance(constant, CodeType) for constant in self.state.func_id.code.co_consts):
                left_out.add(InlineClosureLikes)
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [(replaced.get(step, step), text) for step, text in passes.passes if step not in left_out]
        passes.finalize()
        return [passes]


class Library(JITCodeLibrary):
    """Machine code whose functions are only tidied before they are inlined: what is inlined, and large kernels.

    LLVM's older passes for single functions did no more than that; the newer ones go through nearly all there is.
    Small kernels need them: loops that fill memory took twice their time.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        codegen = self._codegen
        if hasattr(codegen, "_mpm_cheap"):  # until Numba 0.61
            super()._optimize_functions(ll_module)
            return
        ll_module.data_layout = codegen._data_layout
        passes, builder = llvm.create_new_function_pass_manager(), codegen._pass_builder()
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        for function in ll_module.functions:
            if not function.is_declaration:
                passes.run(function, builder)


class _Once(Library):
    """Machine code that LLVM optimises once.

    Numba has it do that twice, and in between removes what counts references, of which kernels have none.
    """

    def _optimize_final_module(self) -> None:
        codegen = self._codegen
        if hasattr(codegen, "_mpm_cheap"):  # until Numba 0.61
            codegen._mpm_cheap.run(self._final_module)
        else:
            passes, builder = codegen._module_pass_manager(
                loop_vectorize=codegen._loopvect, slp_vectorize=False, opt=codegen._opt_level, cost="cheap"
            )
            passes.run(self._final_module, builder)
        if any(x.name.startswith("numba.dynamic.globals") for x in self._final_module.global_variables):
            raise AssertionError(f"{self.name} refers to objects of the process, which only the second time removes")


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Lower a function into such a library."""

    _name = "tile_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Once(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super().run_pass(state)


class TileCompiler(KernelCompiler):
    """The pipeline for kernels that are large, since register tiles of many sizes are written out in them.

    Nothing in those is left to improve. Others need it: gradients of pooling and of batch norms took twice their time.
    """

    replaced = {NativeLowering: _Lowering}
