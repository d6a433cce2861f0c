"""Models whose parameters lie in shards on several processes: FullyShardedDataParallel and fully_shard.

Their parameters are gathered one at a time (with FullyShardedDataParallel: one wrapped unit at a time), on all
processes in the same order. Without torch.distributed, all of this comes down to the parameter itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

_WRAPPER = "_fsdp_wrapped_module."


def distributed() -> bool:
    """Whether this process is one of several that work together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def by_the_first(write: Callable[[], None]) -> None:
    """Lets one process write, and returns when all have come here."""
    if not distributed() or dist.get_rank() == 0:
        write()
    if distributed():
        dist.barrier()


def plain_name(name: str) -> str:
    """A module's name without the wrappers of FullyShardedDataParallel.

    >>> plain_name("blocks._fsdp_wrapped_module.0"), plain_name("_fsdp_wrapped_module")
    ('blocks.0', '')
    """
    return (name + ".").replace(_WRAPPER, "").rstrip(".")


def is_dtensor(value: Any) -> bool:
    """Whether a tensor is a shard of a bigger one (fully_shard)."""
    # Without a process group there are none; and there is no DTensor in all of the places where torch has kept it.
    return dist.is_available() and dist.is_initialized() and hasattr(value, "placements")


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter of the model lies in shards."""
    return bool(wrapped_units(model)) or any(is_dtensor(value) for value in model.parameters())


def wrapped_units(model: nn.Module) -> dict[int, nn.Module]:
    """Of each module (by id) inside a FullyShardedDataParallel wrapper: the innermost wrapper.

    Raises:
        ValueError: a wrapper that has fused its parameters for good.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return {}
    from torch.distributed.fsdp import FullyShardedDataParallel

    found: dict[int, nn.Module] = {}
    for name, wrapper in model.named_modules():  # outer ones come first
        if isinstance(wrapper, FullyShardedDataParallel):
            if not wrapper._use_orig_params:
                raise ValueError(
                    f"the FullyShardedDataParallel wrapper {plain_name(name) or 'of the model'} has fused its "
                    "parameters; wrap with use_orig_params=True, so that each keeps its name and shape"
                )
            found.update((id(module), wrapper) for module in wrapper.modules())
    return found


def full_shapes(model: nn.Module, wrapped: dict[int, nn.Module]) -> dict[int, tuple[int, ...]]:
    """The whole shape of each parameter (by id) that a wrapper keeps as a flat shard."""
    shapes: dict[int, tuple[int, ...]] = {}
    for wrapper in {id(wrapper): wrapper for wrapper in wrapped.values()}.values():
        with _summoned(wrapper, write=False):
            for module in wrapper.modules():
                if wrapped.get(id(module)) is wrapper:
                    shapes.update((id(p), tuple(p.shape)) for p in module._parameters.values() if p is not None)
    return shapes


@contextmanager
def gathered(module: nn.Module, parameter: str, wrapper: nn.Module | None, write: bool) -> Iterator[torch.Tensor]:
    """The whole values of a parameter; with `write`, what is changed in place in them is kept.

    All processes must come here in the same order.
    """
    value = module.get_parameter(parameter)
    if wrapper is not None:
        with _summoned(wrapper, write), torch.no_grad():
            # Its storage is resized at the end, which it may not be once numpy has seen it.
            whole = module.get_parameter(parameter).detach().clone()
            yield whole
            if write:
                module.get_parameter(parameter).data.copy_(whole)
    elif is_dtensor(value):
        try:
            from torch.distributed.tensor import distribute_tensor
        except ImportError:  # torch before 2.5
            from torch.distributed._tensor import distribute_tensor  # type: ignore[attr-defined,unused-ignore]
        with torch.no_grad():
            whole = value.full_tensor()  # type: ignore[attr-defined]
            yield whole
            if write:
                shard = distribute_tensor(whole, value.device_mesh, value.placements)  # type: ignore[attr-defined]
                value.to_local().copy_(shard.to_local())  # type: ignore[attr-defined]
    else:
        yield value.data


def _summoned(wrapper: nn.Module, write: bool, gradients: bool = False) -> Any:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel.summon_full_params(wrapper, recurse=False, writeback=write, with_grads=gradients)


def full_gradient(module: nn.Module, parameter: str, wrapper: nn.Module | None) -> torch.Tensor | None:
    """The whole gradient of a parameter in shards, or None if it has none.

    All processes must come here in the same order.
    """
    if wrapper is not None:
        with _summoned(wrapper, write=False, gradients=True):
            gradient = module.get_parameter(parameter).grad
            return None if gradient is None else gradient.detach().clone()
    gradient = module.get_parameter(parameter).grad
    if gradient is None:
        return None
    if is_dtensor(gradient):
        whole: torch.Tensor = gradient.full_tensor()  # type: ignore[attr-defined]
        return whole
    dist.all_reduce(gradient)  # one that the wrappers leave alone, in a model that they do not
    return gradient


def wrapped(model: nn.Module, policy: Any) -> nn.Module:
    """The model in shards over all processes, for a pass with gradients; the model itself stays whole.

    The modules are copied, their parameters are not: each process copies its shard alone.
    """
    from torch.distributed.fsdp import FullyShardedDataParallel

    memo = {id(p): nn.Parameter(p.data, p.requires_grad) for p in model.parameters()}
    shell = copy.deepcopy(model, memo)
    device = torch.cuda.current_device() if torch.cuda.is_available() else torch.device("cpu")
    return FullyShardedDataParallel(
        shell,
        auto_wrap_policy=policy.get_policy() if hasattr(policy, "get_policy") else policy,
        use_orig_params=True,
        device_id=device,
    )
