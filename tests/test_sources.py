"""Rules that the sources keep: who computes, who imports whom, and what kernels may refer to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import numbanet

PACKAGE = Path(numbanet.__file__).parent
ENGINE = [path for folder in ("cpu", "ops", "functional", "nn", "optim") for path in (PACKAGE / folder).rglob("*.py")]
ENGINE += [PACKAGE / f"{name}.py" for name in ("tensor", "tensor_methods", "tape", "dispatch")]
ENGINE += [PACKAGE / f"{name}.py" for name in ("memory", "arenas", "blocks")]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# ---------------------------------------------------------------------------------------------------------------------
# No borrowed arithmetic

BORROWED = {
    "dot", "vdot", "inner", "outer", "matmul", "tensordot", "einsum", "kron", "convolve", "correlate", "linalg", "fft",
    "vecdot", "matvec", "vecmat", "multi_dot",
}  # fmt: skip


def borrowed(module: ast.Module) -> Iterator[str]:
    """Every use of a product that NumPy or SciPy computes."""
    for node in ast.walk(module):
        if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.MatMult):
            yield f"line {node.lineno}: @"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("np", "numpy") and node.attr in BORROWED:
                yield f"line {node.lineno}: {node.value.id}.{node.attr}"
            elif node.attr == "dot":
                yield f"line {node.lineno}: .dot"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("numpy", "scipy"):
            names = {alias.name for alias in node.names}
            if "scipy" in node.module or names & BORROWED:
                yield f"line {node.lineno}: from {node.module} import {', '.join(sorted(names))}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "scipy":
                    yield f"line {node.lineno}: import {alias.name}"


# First values are no results: one factorisation gives orthogonal ones.
LENT = {"nn/init.py": ["np.linalg"]}


@pytest.mark.parametrize("path", ENGINE, ids=name_of)
def test_the_engine_borrows_no_arithmetic(path: Path) -> None:
    assert [found.partition(": ")[2] for found in borrowed(tree(path))] == LENT.get(name_of(path), [])


@pytest.mark.parametrize(
    "line",
    ["a @ b", "a @= b", "np.dot(a, b)", "a.dot(b)", "np.einsum('ij->i', a)", "import scipy.signal", "np.linalg.norm(a)",
     "from scipy import signal", "from numpy import matmul", "numpy.tensordot(a, b)", "f = np.matmul"],
)  # fmt: skip
def test_the_search_finds(line: str) -> None:
    assert list(borrowed(ast.parse(line)))


def test_the_search_leaves_our_own_alone() -> None:
    text = "from numbanet.ops import matmul\nops.matmul(a, b)\nself.matmul(x)\n@kernel\ndef f(): pass\n"
    assert not list(borrowed(ast.parse(text)))


# ---------------------------------------------------------------------------------------------------------------------
# Imports run downward

LAYERS = [
    ("problem", "settings", "trusted", "candidate", "memory", "prepared", "watch", "changes", "device_array", "locks",
     "code_cache", "fingerprint", "sources", "names", "caller", "heap", "blocks", "arenas", "host", "moments"),
    ("reference", "cpu", "cuda"),
    ("dispatch", "measured"),
    ("ops", "random"),
    ("tensor", "tensor_methods", "tape", "deferred", "creation"),
    ("functional",),
    ("nn", "optim", "amp"),
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def imports(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The numbanet modules that are imported when the module is (imports inside functions may look upward)."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numbanet":
            inner = (node.module or "").split(".")[1:]
            for alias in node.names:
                yield node.lineno, (inner or [alias.name])[0]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("numbanet."):
                    yield node.lineno, alias.name.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_imports_run_downward(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    highest = HEIGHT.get(own, 99)  # what stands above the layers (training, models, data) may import everything
    wrong = [(line, name) for line, name in imports(tree(path)) if HEIGHT.get(name, 99) > highest]
    assert wrong == [], f"{own} stands below what it imports"


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


def compiled_functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            names = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
            if names & {"kernel", "device"}:
                yield node


@pytest.mark.parametrize("path", sorted((PACKAGE / "cpu").glob("*.py")), ids=name_of)
def test_kernels_refer_to_nothing_outside_their_folder(path: Path) -> None:
    """Machine code on disk is keyed by the sources of this folder: a constant from elsewhere could change unnoticed."""
    module = tree(path)
    outside = {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("numbanet")
        for alias in node.names
        if not node.module.startswith("numbanet.cpu") and not (node.module == "numbanet" and alias.name == "cpu")
    }
    for function in compiled_functions(module):
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert not used & outside, f"{function.name} uses {used & outside}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "cpu").glob("*.py")), ids=name_of)
def test_one_decorator_compiles(path: Path) -> None:
    """Options, caching and the rule of one version a dtype have one place."""
    text = path.read_text(encoding="utf-8")
    if path.name not in ("compile.py", "parallel.py", "task.py", "crew.py"):
        assert "njit" not in text and "numba.jit" not in text and "cfunc" not in text


# ---------------------------------------------------------------------------------------------------------------------
# The CUDA compiler has one place, and so has what brings kernels to the driver

COMPILER, DRIVER = {"numba", "numba_cuda", "llvmlite"}, {"cuda"}
LANGUAGE = {
    "cuda": r"(threadIdx|blockIdx)(\.[xyz])?|(local|shared)(\.array)?|syncthreads",
    "types": "u?int(8|16|32|64)|float(32|64)",
}
KERNELS = sorted((PACKAGE / "cuda").glob("*.py"))


def packages(module: ast.Module) -> set[str]:
    """The packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
    return found


def dotted(node: ast.expr) -> str:
    """The words of ``a.b.c``; "" of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def words(module: ast.Module, name: str) -> set[str]:
    """What a module takes from a namespace that it has imported."""
    found = (dotted(node) for node in ast.walk(module) if isinstance(node, ast.Attribute))
    return {word.removeprefix(f"{name}.") for word in found if word.startswith(f"{name}.")}


def named_types(module: ast.Module) -> set[str]:
    """What a module calls the compiler's types: ``i32 = types.int32``, also imported, or ``number = real(dtype)``."""
    found = {
        alias.asname or alias.name for node in ast.walk(module) if isinstance(node, ast.ImportFrom)
        for alias in node.names if re.fullmatch(r"[uif]\d+", alias.name)
    }  # fmt: skip
    for node in ast.walk(module):
        if isinstance(node, ast.Assign):
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
            found |= {dotted(target) for target, value in zip(targets, values) if is_type(value)}
    return found - {""}


def is_type(node: ast.expr) -> bool:
    """Whether an expression is one of the compiler's types."""
    if isinstance(node, ast.Call):
        made, first = dotted(node.func), dotted(node.args[0]) if node.args else ""
        return made in ("real", "vector.real") or (made, first) == ("getattr", "types")
    return re.fullmatch(r"types\.\w+", dotted(node)) is not None


def asked_of_types(module: ast.Module) -> set[str]:
    """What a module asks of the compiler's types themselves, where it could ask NumPy's."""
    names = named_types(module)
    return {
        ast.unparse(node) for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and (dotted(node.value) in names or is_type(node.value))
    }  # fmt: skip


def strings(module: ast.Module) -> set[str]:
    """All strings but the texts that describe."""
    texts = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    return {
        node.value for node in ast.walk(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
    }  # fmt: skip


def test_one_package_imports_the_cuda_compiler() -> None:
    assert [name_of(path) for path in KERNELS if packages(tree(path)) & COMPILER] == []
    running = [name_of(path) for path in KERNELS if packages(tree(path)) & DRIVER]
    assert running == ["cuda/launch.py", "cuda/probe.py"]


def test_one_file_beside_it_names_the_cuda_compiler() -> None:
    others = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE / "cuda" / "ptx"]
    assert [
        name_of(path) for path in others if any(re.search("numba[._-]cuda", text) for text in strings(tree(path)))
    ] == ["cuda/launch.py"]


@pytest.mark.parametrize("path", KERNELS, ids=name_of)
def test_kernels_take_a_few_words_from_the_compiler(path: Path) -> None:
    module = tree(path)
    taken = {
        alias.asname or alias.name for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module == "numbanet.cuda.ptx" for alias in node.names
    }  # fmt: skip
    for name in taken & {*LANGUAGE}:
        assert [word for word in words(module, name) if not re.fullmatch(LANGUAGE[name], word)] == []
    assert asked_of_types(module) == set()


@pytest.mark.parametrize("line", [
    "real(dtype).bitwidth", "i32.bitwidth", "number = real(dtype)\nnumber.name", "types.int8.bitwidth",
    "u8, u16 = types.uint8, types.uint16\nu16.signed", "getattr(types, name).bitwidth",
    "def f():\n    kind = types.int8\n    kind.signed",
])  # fmt: skip
def test_what_is_asked_of_the_compilers_types_is_found(line: str) -> None:
    head = "from numbanet.cuda.ptx import types\nfrom numbanet.cuda.vector import i32, real\n"
    assert len(asked_of_types(ast.parse(head + line))) == 1


def test_what_is_asked_of_others_is_left_alone() -> None:
    text = "number = real(dtype)\nnumber(0)\nnp.dtype(dtype).itemsize\nvector.i32(x.size)\ni32(cuda.threadIdx.x)\n"
    assert not asked_of_types(ast.parse(text))
