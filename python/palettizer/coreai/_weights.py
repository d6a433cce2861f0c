"""Which constants of a program are weights, what they are called, and along which axis their output channels lie.

A weight is a constant that an operation of the table uses as one, at once or through operations that only move it. What
other operations use, such as masks and tables of positions, is no weight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palettizer.coreai._constants import CONSTANT, bits, element, is_tensor, read, shape
from palettizer.coreai._fold import ends_chain
from palettizer.coreai._wheel import ir, mlir

GRAPH, INVOKE, OUTPUT = "coreai.graph", "coreai.invoke", "coreai.output"

Axis = Callable[[int], int]
"""The axis of output channels of a weight of some rank."""

USERS: dict[tuple[str, int], tuple[str, Axis]] = {
    ("coreai.conv2d", 1): ("conv", lambda rank: 0),
    ("coreai.conv3d", 1): ("conv", lambda rank: 0),
    ("coreai.conv_transpose2d", 1): ("conv_transpose", lambda rank: 1),
    ("coreai.conv_transpose3d", 1): ("conv_transpose", lambda rank: 1),
    ("coreai.batch_matmul", 0): ("matmul", lambda rank: rank - 2),
    ("coreai.batch_matmul", 1): ("matmul", lambda rank: rank - 1),
    ("coreai.decomposable.broadcasting_batch_matmul", 0): ("matmul", lambda rank: rank - 2),
    ("coreai.decomposable.broadcasting_batch_matmul", 1): ("matmul", lambda rank: rank - 1),
    ("coreai.gather_nd", 0): ("gather", lambda rank: 0),
    ("coreai.gather_along_axis", 0): ("gather", lambda rank: 0),
}
"""Operation and operand -> what it is called in configurations, as in Core ML, and the axis of the weight's channels."""


ENDS = {
    f"coreai.{name}"
    for name in (
        "cast", "reshape", "transpose", "expand_dims", "shrink_dims", "slice", "softmax", "log_softmax", "tanh",
        "decomposable.broadcasting_add", "decomposable.broadcasting_sub", "decomposable.broadcasting_mul",
        "decomposable.broadcasting_divide",
    )
}  # fmt: skip
"""Operations that logits may go through before they are given."""


@dataclass
class Use:
    """An operation that uses a weight."""

    op: Any
    kind: str
    axis: int | None
    """Of the weight's output channels, before whatever moves it; None if that is not known."""
    modules: list[str]
    """That the operation is in, the outermost first."""
    name: str = ""


@dataclass
class Weight:
    """A constant that is a weight, or the end of a chain of operations that makes one of what is stored."""

    op: Any
    graph: str
    uses: list[Use]
    names: list[str] = field(default_factory=list)

    @property
    def compressed(self) -> bool:
        """Whether it is stored in another form."""
        return bool(self.op.name != CONSTANT)

    @property
    def role(self) -> str | None:
        """What it is to a language model: `embedding` where rows of it are looked up, `head` where it makes what is given of less."""
        sizes = shape(self.op.results[0])
        if len(sizes) == 2 and any(use.kind == "gather" for use in self.uses):
            return "embedding"
        axes = [use.axis for use in self.uses if use.kind in ("linear", "matmul") and _is_given(use.op)]
        wide = any(axis is not None and sizes[axis] == max(sizes) > min(sizes) for axis in axes)
        return "head" if len(sizes) == 2 and wide else None

    @property
    def axis(self) -> int | None:
        """The axis of its output channels: that of the first use which has one, a product before a lookup."""
        known = sorted((use.kind == "gather", use.axis) for use in self.uses if use.axis is not None)
        return known[0][1] if known else None


def weights(program: Any) -> list[Weight]:
    """The weights of a program, in its order."""
    graphs = {_name(op): op for op in _graphs(program)}
    stable = _stable(list(graphs))
    found: list[Weight] = []
    order = {op: at for at, op in enumerate(op for graph in graphs.values() for op in _operations(graph))}
    for name, graph in graphs.items():
        for op in _operations(graph):
            if (op.name == CONSTANT or ends_chain(op)) and is_tensor(op.results[0]) and len(shape(op.results[0])) >= 2:
                uses = list(_uses(op.results[0], list(range(len(shape(op.results[0])))), graphs, frozenset()))
                uses.sort(key=lambda use: order[use.op])  # a file keeps the uses of a value in no order
                if uses:
                    found.append(Weight(op, stable[name], uses))
    _call(found)
    return found


def _stable(graphs: list[str]) -> dict[str, str]:
    """Names of graphs without the letters that a converter draws for its own: `sdpa_nzgqyiig` is `sdpa`, the next `sdpa_1`."""
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name in graphs:
        stem = re.sub(r"_[a-z]{8}$", "", name)
        counts[stem] = counts.get(stem, -1) + 1
        found[name] = f"{stem}_{counts[stem]}" if counts[stem] else stem
    return found


def _call(found: list[Weight]) -> None:
    """Gives each weight its names.

    The first is that of its first use: the graph, the modules that it is in where the program knows them, the kind of use, and
    how many of that kind came before. The names without modules are there, too: they do not depend on what the program knows.
    """
    counts: dict[str, int] = {}

    def counted(stem: str) -> str:
        counts[stem] = counts.get(stem, 0) + 1
        return f"{stem}_{counts[stem] - 1}"

    for weight in found:
        short = [counted(f"{weight.graph}.{use.kind}") for use in weight.uses]
        for use, name in zip(weight.uses, short):
            use.name = counted(".".join([weight.graph, *use.modules, use.kind])) if use.modules else name
        weight.names = list(dict.fromkeys([weight.uses[0].name, *(use.name for use in weight.uses), *short]))


def _is_given(op: Any) -> bool:
    """Whether what an operation makes, or little more than it, is an output."""
    seen, left = {op}, [op]
    while left:
        for use in left.pop().results[0].uses:
            if use.owner.name == OUTPUT:
                return True
            if use.owner.name in ENDS and use.owner not in seen:
                seen.add(use.owner)
                left.append(use.owner)
    return False


def _modules(op: Any) -> list[str]:
    """The modules that an operation comes from, the outermost first, as far as a program made for debugging says."""
    found = re.search(r'"call_stack": \[([^\]]*)\]', str(op.location))
    return re.findall(r'"([^"]*)"', found[1].replace("$", "_"))[::-1] if found else []


def _graphs(program: Any) -> Iterator[Any]:
    found: list[Any] = []

    def look(op: Any) -> Any:
        if op.name == GRAPH:
            found.append(op)
        return ir.WalkResult.ADVANCE

    mlir(program).operation.walk(look)
    yield from found


def _operations(graph: Any) -> Iterator[Any]:
    for region in graph.regions:
        for block in region.blocks:
            yield from block.operations


def _name(graph: Any) -> str:
    return str(ir.StringAttr(graph.attributes["sym_name"]).value)


def _uses(value: Any, axes: list[int | None], graphs: dict[str, Any], within: frozenset[str]) -> Iterator[Use]:
    """The uses of a value as a weight; `axes` are where each of its axes lies in the weight itself."""
    for use in value.uses:
        op, operand = use.owner, use.operand_number
        known = USERS.get((op.name, operand))
        if known is not None:
            kind, axis = known
            turned = axes != sorted(axes, key=lambda at: -1 if at is None else at)
            name = "linear" if kind == "matmul" and turned and operand == 1 else kind
            yield Use(op, name, axes[axis(len(axes))], _modules(op))
        elif op.name in MOVES and operand == 0:
            moved = MOVES[op.name](op, axes)
            if moved is not None:
                yield from _uses(op.results[0], moved, graphs, within)
        elif op.name == INVOKE:
            callee = _callee(op)
            graph = graphs.get(callee)
            if graph is not None and callee not in within and operand < len(graph.regions[0].blocks[0].arguments):
                inside = graph.regions[0].blocks[0].arguments[operand]
                yield from _uses(inside, axes, graphs, within | {callee})


def _callee(op: Any) -> str:
    """The graph that is invoked."""
    found = re.search(r'@"?([^">]+)', str(op.attributes["callee"])) if "callee" in op.attributes else None
    return found[1] if found else ""


def _transposed(op: Any, axes: list[int | None]) -> list[int | None] | None:
    order = _numbers(op.operands[1])
    return None if order is None or sorted(order) != list(range(len(axes))) else [axes[at] for at in order]


def _reshaped(op: Any, axes: list[int | None]) -> list[int | None] | None:
    """Axes that keep their size and what is before and behind them."""
    old, new = shape(op.operands[0]), shape(op.results[0]) if is_tensor(op.results[0]) else None
    if new is None:
        return None
    ends_old, ends_new = _ends(old), _ends(new)
    return [next((axes[i] for i, end in enumerate(ends_old) if end == here and old[i] == new[j] != 1), None)
            for j, here in enumerate(ends_new)]  # fmt: skip


def _ends(sizes: tuple[int, ...]) -> list[int]:
    """How many elements there are in front of each axis, with it."""
    ends, count = [], 1
    for size in sizes:
        count *= size
        ends.append(count)
    return ends


def _broadcast(op: Any, axes: list[int | None]) -> list[int | None] | None:
    rank = len(shape(op.results[0])) if is_tensor(op.results[0]) else 0
    front: list[int | None] = [None] * (rank - len(axes))
    return front + axes if rank >= len(axes) else None


def _numbers(value: Any) -> list[int] | None:
    """The values of a constant of integers."""
    op = value.owner
    if getattr(op, "name", "") != CONSTANT or element(value)[:2] not in ("si", "ui") or bits(value) not in (8, 16, 32, 64):
        return None
    kind = {"s": "i", "u": "u"}[element(value)[0]]
    return [int(number) for number in read(op).view(np.dtype(f"<{kind}{bits(value) // 8}"))]


MOVES: dict[str, Callable[[Any, list[int | None]], list[int | None] | None]] = {
    "coreai.transpose": _transposed,
    "coreai.reshape": _reshaped,
    "coreai.expand_dims": _reshaped,
    "coreai.shrink_dims": _reshaped,
    "coreai.broadcast_to": _broadcast,
    "coreai.broadcast_in_dims": _broadcast,
    "coreai.cast": lambda op, axes: axes,
}
"""Operations that only move a weight: where its axes are then, or None if nobody knows."""
