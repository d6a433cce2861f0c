"""PyTorch modules that were palettized, as Core AI programs: each palette as it is, instead of a dense weight."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from palettizer import _native
from palettizer.coreai._chains import emit
from palettizer.coreai._constants import read
from palettizer.coreai._fold import LOOKUP
from palettizer.coreai._opened import Opened
from palettizer.coreai._program import Program
from palettizer.coreai._wheel import ir, mlir

if TYPE_CHECKING:
    import torch

VERSION = "0.4.3"
PACKAGE = "coreai-torch"
_ADVICE = f"pip install 'palettizer[coreai-torch]' (it brings {PACKAGE}=={VERSION})"
_LOWERING, _WEIGHT = "palettizer_coreai::weight.default", "weight(int index) -> Tensor"

_library: Any = None
"""The namespace of our operation in PyTorch; it is gone when nobody holds it."""


def convert(
    model: torch.nn.Module,
    example_inputs: Any,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    state_names: Sequence[str] | None = None,
    entrypoint_name: str = "main",
    debug_info: bool = True,
    progress: bool = True,
) -> Program:
    """Converts a module that was palettized to a Core AI program that holds the palettes.

    The module is exported by `torch.export` as it is in evaluation, and lowered by coreai-torch. Each palettized weight
    becomes its indices and its table, and stands for the same values to the bit; one that several layers share is stored
    once. The module stays as it is.

    Args:
        model: what a palettizer of `palettizer.torch.palettization` returned; of `DKMPalettizer`, after `finalize`.
        example_inputs: the positional inputs of the model, a tuple or one tensor.
        example_kwargs: inputs that are given by name.
        dynamic_shapes: which sizes of the inputs may be others, as `torch.export.export` takes it.
        input_names: what the inputs are called in the program, in their order. Else as in `forward`.
        output_names: what the outputs are called.
        state_names: what buffers are called that the model changes.
        entrypoint_name: the function that the program has.
        debug_info: say in the program which module and which line of its source an operation comes from. Names of
            weights, as in `get_weights_metadata`, are made of it.
        progress: show coreai-torch's progress.

    Returns:
        The program, which `save` writes; its attribute `program` is the `AIProgram` of coreai-core.

    Raises:
        ImportError: coreai-torch is not there.
        ValueError: nothing in the module is palettized, a weight was changed since, or coreai-torch cannot convert the model.

    >>> import torch
    >>> from palettizer.coreai import convert, get_weights_metadata
    >>> from palettizer.torch.palettization import PostTrainingPalettizer
    >>> model = PostTrainingPalettizer(torch.nn.Linear(128, 64)).compress(progress=False)
    >>> program = convert(model, torch.rand(1, 128), progress=False)
    >>> [weight.unique_values for weight in get_weights_metadata(program).values()]
    [16]
    """
    converters = _loaded()
    import torch

    from palettizer.torch.palettization._plan.sharding import is_sharded

    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    if not isinstance(inputs, (tuple, list)):
        raise TypeError(f"example_inputs is a {type(inputs).__name__}; expected a tuple of the model's inputs")
    if is_sharded(model):
        raise ValueError("the parameters of the model are sharded; gather them first")
    palettes = _palettes(model)
    if not palettes:
        raise ValueError(_nothing(model))
    with _evaluated(model):
        exported = torch.export.export(model, tuple(inputs), dict(example_kwargs or {}), dynamic_shapes=dynamic_shapes)
        exported = exported.run_decompositions(converters.get_decomp_table())
    used = _marked(exported, palettes)
    if not used:
        names = ", ".join(sorted(palettes)[:3])
        raise ValueError(f"what the model computes uses none of its palettized weights ({names}); is it the right forward?")

    modes = converters.TorchConverter.Mode
    converter = converters.TorchConverter(mode=modes.DEBUG if debug_info else modes.RELEASE)
    kinds = {"f32": ir.F32Type, "f16": ir.F16Type, "bf16": ir.BF16Type}

    def lower(values: Any, node: Any, location: Any) -> Any:
        _, palette = used[node.args[0]]
        with location:
            return emit(palette, kinds[palette.dtype].get())

    converter.register_torch_lowering(_LOWERING)(lower)
    with contextlib.nullcontext() if progress else contextlib.redirect_stdout(io.StringIO()):
        try:
            made = converter.add_exported_program(
                exported, input_names=input_names, output_names=output_names, state_names=state_names,
                entrypoint_name=entrypoint_name,
            ).to_coreai()  # fmt: skip
        except Exception as error:  # of whatever type: it comes from the wheel
            raise ValueError(f"{PACKAGE} cannot convert the model: {_of(exported, str(error))}{error}") from error
    lost = _lost(made, used)
    if lost:
        raise ValueError(
            f"{PACKAGE} {metadata.version(PACKAGE)} kept no palette of {', '.join(lost)}; palettizer.coreai works with "
            f"{VERSION}: {_ADVICE}"
        )
    return Program(Opened(made))


def _loaded() -> Any:
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ImportError(f"palettizer.coreai.convert needs {PACKAGE}, which is not installed: {_ADVICE}") from None
    try:
        module = importlib.import_module("coreai_torch")
    except ImportError as error:
        raise ImportError(f"{PACKAGE} {found} cannot be imported ({error}): {_ADVICE}") from error
    converter = getattr(module, "TorchConverter", None)
    wanted = (
        (module, ("get_decomp_table", "TorchConverter")),
        (converter, ("Mode", "add_exported_program", "register_torch_lowering", "to_coreai")),
    )
    missing = [name for owner, names in wanted for name in names if not hasattr(owner, name)]
    if missing:
        raise ImportError(
            f"{PACKAGE} {found} does not have {', '.join(missing)}; palettizer.coreai works with {VERSION}: {_ADVICE}"
        )
    return module


def _palettes(model: torch.nn.Module) -> dict[str, tuple[Any, _native.Palette]]:
    """The palettes of parameters by all their names, each with what is the same for those that are one tensor."""
    from palettizer.torch.palettization._io.store import _identity, recovered
    from palettizer.torch.palettization._plan.metadata import PALETTIZATION, recorded

    names: dict[str, Any] = {}
    found: dict[Any, _native.Palette] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter, value in module._parameters.items():
            if value is not None:
                name = f"{path}.{parameter}" if path else parameter
                names[name] = same = _identity(value)
                if same not in found and PALETTIZATION in recorded(module, parameter):
                    found[same] = recovered(module, parameter, name, value)
    return {name: (same, found[same]) for name, same in names.items() if same in found}


def _nothing(model: torch.nn.Module) -> str:
    """What to do about a model without palettes."""
    from palettizer.torch.palettization import FakePalettize

    if any(isinstance(module, FakePalettize) for module in model.modules()):
        return "the model is prepared for training with DKMPalettizer and not finished: convert what its finalize() returns"
    return (
        f"no weight of the model ({type(model).__name__}) is palettized: palettize it first, with PostTrainingPalettizer or "
        "another of palettizer.torch.palettization, or convert it with coreai_torch.TorchConverter itself, which keeps "
        "weights dense"
    )


@contextlib.contextmanager
def _evaluated(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation, without gradients and without operations that take several layers in one."""
    import torch

    training = [module for module in model.modules() if module.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module in training:
            module.training = True


def _marked(exported: Any, palettes: dict[str, tuple[Any, _native.Palette]]) -> list[tuple[str, _native.Palette]]:
    """Puts an operation of ours in the place of each palettized parameter of an exported program.

    Returns:
        The palettes that the program uses, with the names of their parameters; the operation says which it is.
    """
    global _library
    import torch

    if _library is None:
        library: Any = torch.library
        _library = library.Library("palettizer_coreai", "FRAGMENT")
        _library.define(_WEIGHT)
    operation = torch.ops.palettizer_coreai.weight.default
    graph, signature = exported.graph, exported.graph_signature
    graph.eliminate_dead_code()
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    order = {node: place for place, node in enumerate(graph.nodes)}
    _refuse_copies(exported, palettes)
    used: list[tuple[str, _native.Palette]] = []
    made: dict[Any, Any] = {}
    for spec in list(signature.input_specs):
        if spec.target not in palettes:
            continue
        same, palette = palettes[spec.target]
        node = nodes[spec.arg.name]
        if node.users and same not in made:
            # before all uses of all its names, and as if it were part of the first
            users = [user for each in signature.input_specs if palettes.get(each.target, (None,))[0] == same
                     for user in nodes[each.arg.name].users]  # fmt: skip
            user = min(users, key=lambda one: order[one])
            name = next(name for name in palettes if palettes[name][0] == same)
            with graph.inserting_before(user):
                made[same] = graph.create_node("call_function", operation, (len(used),), name=name.replace(".", "_"))
            made[same].meta = {**(node if user.op == "output" else user).meta, "val": node.meta["val"]}
            used.append((name, palette))
        if node.users:
            node.replace_all_uses_with(made[same])
        # else the converter would hold the dense weight too, until it finds that nothing uses it
        graph.erase_node(node)
        signature.input_specs.remove(spec)
    return used


def _refuse_copies(exported: Any, palettes: dict[str, tuple[Any, _native.Palette]]) -> None:
    """Refuses a program that has the dense values of a palettized weight as a constant."""
    held = {exported.state_dict[name].untyped_storage().data_ptr(): name for name in palettes if name in exported.state_dict}
    for constant in exported.constants.values():
        storage = getattr(constant, "untyped_storage", None)
        name = None if storage is None else held.get(storage().data_ptr())
        if name is not None:
            raise ValueError(
                f"{name} is palettized, but torch.export takes it for a constant, which would be dense: use the parameter "
                "itself in forward, not its `.data` or a tensor made of it before"
            )


def _of(exported: Any, text: str) -> str:
    """The modules that a message is about: it names nodes of the graph, or their operations."""
    found: dict[str, None] = {}
    words = {word.strip(",.;:'\"()").partition("[")[0] for word in text.split()}
    for node in exported.graph.nodes:
        if node.op == "call_function" and {node.name, str(node.target)} & words:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            if stack:
                path, kind = stack[-1]
                found[f"{path or 'the model itself'} ({str(kind).rpartition('.')[2]})"] = None
    return f"{', '.join(found)}: " if found else ""


def _lost(program: Any, used: list[tuple[str, _native.Palette]]) -> list[str]:
    """The parameters whose palettes are not in the program."""
    found: set[bytes] = set()

    def look(op: Any) -> Any:
        if op.name == LOOKUP:
            found.add(read(op.operands[0].owner).tobytes())
        return ir.WalkResult.ADVANCE

    mlir(program).operation.walk(look)
    return [name for name, palette in used if palette.indices.tobytes() not in found]
