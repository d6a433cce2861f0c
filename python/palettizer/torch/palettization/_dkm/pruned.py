"""Layers that are pruned while their weights are palettized: by coremltools' pruners, or by torch.nn.utils.prune.

Both keep a layer's parameter as `weight_orig` with a mask beside it, and make `weight` their product before each
forward. The palettizer is prepared first, then the pruner; so the palettized weight is of the product. A table keeps an
entry at zero for what is pruned.

In the end it is the other way round, palettizer first: pruning is made permanent here, and the pruner then finds the
layer as an ordinary one. A pruner of coremltools takes its layer to be palettized, and records both, if the module that
it was prepared with has fakes still, while the model must have none. So such a layer is replaced by a new module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod

from palettizer.torch.optimization_config import OptimizationConfig
from palettizer.torch.palettization._dkm.layers import DKMLayer, held, is_pruned
from palettizer.torch.palettization._plan.layers import kind_of

_PRUNER = "pruning_method"
"""The attribute by which a pruner of coremltools marks its modules."""


def check_order(model: nn.Module, config: OptimizationConfig) -> None:
    """Refuses a model that a pruner has been prepared for before the palettizer.

    Raises:
        RuntimeError: naming the layers that both are to work on.
    """
    names = [
        name
        for name, module in model.named_modules()
        if hasattr(module, _PRUNER) and kind_of(module) is not None and config.get_module_config(name, module) is not None
    ]
    if names:
        raise RuntimeError(
            f"{', '.join(names)}: prepared for pruning already. Prepare the palettizer first and the pruner after it, "
            "both with inplace=True, and finalize them in the same order. Nothing was changed"
        )


def commit(model: nn.Module) -> None:
    """Makes the pruning of all prepared weights permanent."""
    _replace_pruned(model)
    for module, parameter in {(one.module, one.parameter): None for one in held(model)}:
        if not is_pruned(module, parameter):
            continue
        original, mask = module._parameters.pop(f"{parameter}_orig"), module._buffers.pop(f"{parameter}_mask")
        assert original is not None and mask is not None
        with torch.no_grad():
            original.mul_(mask.to(original.dtype))
        vars(module).pop(parameter, None)
        hooks: Any = module._forward_pre_hooks
        for key, hook in list(hooks.items()):
            if isinstance(hook, BasePruningMethod) and hook._tensor_name == parameter:
                del hooks[key]
                _forget_schedule(module, parameter, hook)
        module.register_parameter(parameter, original)


def _forget_schedule(module: nn.Module, parameter: str, hook: Any) -> None:
    """Takes away what a scheduled pruner of coremltools keeps beside its mask."""
    module._buffers.pop(f"{parameter}_{getattr(hook, 'scheduled_value_name', '')}", None)
    handle = getattr(hook, "sync_scheduled_value_post_hook_handle", None)
    if handle is not None:
        module._load_state_dict_post_hooks.pop(handle.id, None)


def _replace_pruned(model: nn.Module) -> None:
    """Puts a new module in the place of each prepared layer that a pruner of coremltools knows."""
    parents: dict[int, list[Any]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if isinstance(child, DKMLayer) and hasattr(child, _PRUNER):
                parents.setdefault(id(child), [child]).append((parent, name))
    for layer, *places in parents.values():
        twin = _twin(layer)
        for parent, name in places:
            parent._modules[name] = twin


def _twin(layer: nn.Module) -> nn.Module:
    """A module with the same parameters, children and hooks, that no pruner knows."""
    twin = type(layer).__new__(type(layer))
    state = {key: value.copy() if isinstance(value, dict) else value for key, value in vars(layer).items()}
    for key in (_PRUNER, "__getstate__"):
        state.pop(key, None)
    vars(twin).update(state)
    return twin
