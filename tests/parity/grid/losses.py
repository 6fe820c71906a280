"""Losses."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.grid.cases import Entry
from tests.parity.grid.convolution import handed
from tests.parity.grid.rules import given
from tests.parity.grid.running import Call
from tests.parity.grid.values import OMIT, Bad, T, plain

REDUCTIONS = [OMIT, "mean", "sum", "none", "average", None]
REDUCED = {
    "no such reduction": lambda reduction, size_average, reduce: reduction in ("average", None)
    and not given(size_average) and not given(reduce),
}
"""Words that are not looked at where `size_average` or `reduce` is given."""
FLAGS = [OMIT, None, True, False]
SHAPES = [(4, 5), (5,), (3, 5, 4), (2, 5, 3, 2), (0, 5), (1, 5), (40, 5)]


def classes(shape: tuple, target: str, dtype: str, view: str, weight: str, **options: Any) -> Call:
    """A loss of scores and of classes or probabilities."""
    count = shape[1] if len(shape) > 1 else shape[0]
    left = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    view = "transposed" if view and len(shape) > 1 else ""
    targets = {
        "classes": T(left, "int64", kind=f"below {count}"), "bytes": T(left, "uint8", kind=f"below {count}"),
        "int32": T(left, "int32", kind=f"below {count}"), "outside": T(left, "int64", kind="below 90"),
        "probabilities": T(shape, dtype, kind="unit"), "other probabilities": T(shape, "float32", kind="unit"),
        "wrong shape": T((7, 7), "int64", kind="below 2"), "list": [0, 1],
    }  # fmt: skip
    weights = {
        "none": None, "given": T((count,), dtype, kind="positive", grad=False),
        "long": T((count + 1,), dtype, grad=False),
        "other": T((count,), "float32", kind="positive", grad=False), "matrix": T((count, 1), dtype, grad=False),
    }  # fmt: skip
    return Call((T(shape, dtype, view, kind="logs"), targets[target]), {"weight": weights[weight], **handed(**options)})


def safe(shape: tuple, target: str, **rest: Any) -> bool:
    """A wrong shape is one for every shape; a class is outside where there are any; PyTorch's memory stays its own."""
    return not (target == "outside" and shape[0] == 0)


LAYOUT = ["", "transposed"]
PAIRS = {
    "same": ((3, 4), (3, 4)), "scalars": ((), ()), "vectors": ((7,), (7,)), "empty": ((0, 3), (0, 3)),
    "images": ((2, 3, 4, 5), (2, 3, 4, 5)), "broadcast": ((3, 4), (4,)), "one": ((3, 1), (1, 4)),
    "many": ((40, 60),) * 2,
    "unlike": ((3, 4), (2, 4)),
}  # fmt: skip


def pair(
    shapes: str, dtypes: tuple[str, str], view: str, kinds: tuple[str, str], weight: str = "none", **options: Any
) -> Call:
    """A loss of two tensors."""
    a, b = PAIRS[shapes]
    x = T(a, dtypes[0], view if len(a) > 1 else "", kinds[0])
    y: Any = T(b, dtypes[1], "", kinds[1]) if dtypes[1] != "no tensor" else 1.0
    factors = {"given": T(a, "float64", kind="positive", grad=False),
        "last": T(a[-1:], dtypes[0], kind="positive", grad=False)}
    factors |= {"wrong": T((3, 3, 3), grad=False)}
    more = {"weight": factors[weight]} if weight in factors else {}
    if "pos_weight" in options:
        kind = options.pop("pos_weight")
        more |= {"pos_weight": factors[kind]} if kind in factors else {}
    return Call((x, y), {**more, **handed(**options)})


DTYPES = [
    ("float64", "float64"), ("float32", "float32"), ("float32", "float64"), ("float64", "int64"), ("int64", "int64"),
    ("int64", "float32"), Bad(("float32", "no tensor")),
]  # fmt: skip


def pairwise(
    name: str, kinds: list, tolerance: float = 1.0, dtypes: list = DTYPES, refuses: Any = None, broadcast: bool = True,
    more_reductions: tuple = (), **options: Any
) -> Entry:
    shapes = [Bad(s) if s == "unlike" or (not broadcast and s in ("broadcast", "one")) else s for s in PAIRS]
    fixed = {"shapes": shapes, "dtypes": dtypes, "view": ["", "transposed", "strided"], "kinds": kinds}
    reductions = REDUCTIONS if "reduce" in options else [*REDUCTIONS[:-2], *map(Bad, REDUCTIONS[-2:])]
    options = {**fixed, **options, "reduction": [*reductions, *more_reductions]}
    return Entry(
        name, getattr(F, name), getattr(TF, name), options, pair, tolerance, fewest=90,
        refuses={**(REDUCED if "reduce" in options else {}), **(refuses or {})},
    )


NORMAL = [("normal", "normal"), ("few", "few"), ("wild", "normal")]
UNIT = [("unit", "unit"), ("unit", "few"), ("unit", "below 2")]
FLOATING = [Bad(pair) if "int64" in plain(pair) else pair for pair in DTYPES]
SAME = [pair if pair in DTYPES[:2] else Bad(plain(pair)) for pair in DTYPES]
WHOLE = {"weights of another shape": lambda shapes, weight: weight == "last" and shapes not in ("scalars", "vectors")}
OLD = {"size_average": FLAGS, "reduce": FLAGS}
WEIGHTS = ["none", "given", "last", Bad("wrong")]
TARGETS = ["classes", "bytes", Bad("int32"), Bad("outside"), Bad("wrong shape"), Bad("list")]
COMMON = {
    "dtype": ["float64", "float32", Bad("int64")],
    "view": LAYOUT,
    "weight": ["none", "given", Bad("long"), "matrix", "other"],
    **OLD,
}
CLASSES = ("classes", "bytes")
OF_CLASSES = {
    "bytes are classes of rows": lambda shape, target: target == "bytes" and len(shape) > 2,
    "weights of another dtype":
        lambda target, dtype, weight: target in CLASSES and dtype == "float64" and weight == "other",
    "weights of another rank": lambda shape, target, weight:
        weight == "matrix" and (len(shape) < 3 or target not in CLASSES),
}
ENTRIES = [
    Entry(
        "cross_entropy", F.cross_entropy, TF.cross_entropy,
        {
            "shape": SHAPES,
            "target": [*TARGETS, "probabilities", "other probabilities"],
            **COMMON,
            "ignore_index": [OMIT, -100, 2, 0],
            "reduction": REDUCTIONS,
            "label_smoothing": [OMIT, 0.0, 0.3, 1.0, -0.1, Bad(2.0)],
        },
        classes, possible=safe, fewest=120,
        refuses={
            **REDUCED, **OF_CLASSES,
            "probabilities ignore no class":
                lambda target, ignore_index: target.endswith("probabilities") and ignore_index in (2, 0),
        },
    ),
    Entry(
        "nll_loss", F.nll_loss, TF.nll_loss,
        {
            "shape": SHAPES,
            "target": [*TARGETS, Bad("probabilities")],
            **COMMON,
            "ignore_index": [OMIT, -100, 2, 0],
            "reduction": REDUCTIONS,
        },
        classes, possible=safe, fewest=120, refuses={**REDUCED, **OF_CLASSES},
    ),
    Entry(
        "multi_margin_loss", F.multi_margin_loss, TF.multi_margin_loss,
        {
            # not (0, 5): the mean of no rows is memory that PyTorch has not written
            "shape": [(4, 5), (5,), (1, 5), (40, 5), Bad((3, 5, 4))],
            "target": ["classes", Bad("int32"), Bad("outside"), Bad("wrong shape"), Bad("list"), Bad("probabilities")],
            **COMMON,
            "weight": [Bad(kind) if kind == "matrix" else kind for kind in COMMON["weight"]],
            "p": [OMIT, 1, 2, Bad(3), Bad(0)],
            "margin": [OMIT, 1.0, 0.5, 2, 0],
            "reduction": REDUCTIONS,
        },
        classes, possible=safe, fewest=120,
        refuses={
            **REDUCED,
            "weights of another dtype": lambda dtype, weight: dtype == "float64" and weight == "other",
        },
    ),
    pairwise(
        "mse_loss", NORMAL, **OLD, weight=WEIGHTS,
        refuses={
            **WHOLE,
            "integers have no squares":
                lambda dtypes, weight: dtypes == ("int64", "int64") and weight in ("none", None),
        },
    ),
    pairwise("l1_loss", NORMAL, **OLD, weight=WEIGHTS, refuses=WHOLE),
    pairwise(
        "smooth_l1_loss", NORMAL, **OLD, beta=[OMIT, 1.0, 0.5, 2, 0, 0.0, Bad(-1.0)],
        refuses={"integers are not smoothed": lambda dtypes, beta: dtypes == ("int64", "int64") and beta != 0},
    ),
    pairwise(
        "huber_loss", NORMAL, dtypes=[*DTYPES[:4], *(Bad(plain(pair)) for pair in DTYPES[4:])],
        delta=[OMIT, 1.0, 0.5, 2, Bad(0.0), Bad(-1)], weight=WEIGHTS,
        refuses={
            **WHOLE, "two dtypes have no gradient": lambda dtypes, gradients: dtypes[0] != dtypes[1] and gradients,
        },
    ),
    pairwise(
        "binary_cross_entropy", UNIT, 10, SAME, broadcast=False, **OLD, weight=WEIGHTS,
        refuses={
            "targets beyond [0, 1]":
                lambda shapes, kinds: kinds == ("unit", "few") and shapes not in ("scalars", "empty"),
        },
    ),
    pairwise(
        "binary_cross_entropy_with_logits", [("normal", "unit"), ("few", "few"), ("wild", "unit")], 10, FLOATING,
        broadcast=False, **OLD, weight=WEIGHTS,
        pos_weight=["none", "last", "given", Bad("wrong")],
    ),
    pairwise(
        "kl_div", [("logs", "unit"), ("logs", "few"), ("logs", "logs")], 10, FLOATING, **OLD,
        log_target=[OMIT, False, True], more_reductions=("batchmean",),
    ),
]  # fmt: skip
