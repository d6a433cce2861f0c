"""Layers whose weights pass a `FakePalettize` on their way into the layer's function.

A layer is prepared by giving it another class, a subclass of its own, and children beside its parameters. So the layer,
its parameters and their names, its hooks, and optimizers that know it all stay what they are; to finalize is to take
both away again. Each forward is the layer's own. While it runs, the palettized weights stand where the layer looks for
its parameters, whatever it does with them; before and after, its attributes are the parameters.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize
from palettizer.torch.palettization._plan.layers import Place

_SUFFIX = "_fake_quant"
_ACTIVATION = "activation_post_process"


class DKMLayer(nn.Module):
    """Base of the prepared layers: beside each weight a child with its name and `_fake_quant` makes the one to use.

    `activation_post_process` is what the output passes at the end.
    """

    float_class: ClassVar[type[nn.Module]]
    """The layer's own class."""

    palettized_places: tuple[Place, ...]
    activation_post_process: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own forward with palettized weights."""
        standing: list[tuple[nn.Module, str, Any]] = []
        try:
            for module, name, value in _palettized(self):
                standing.append((module, name, _stand_in(module, name, value)))
            made = super().forward(*args, **kwargs)
        finally:
            for module, name, before in reversed(standing):
                _stand_in(module, name, before)
        activation = self.activation_post_process
        return made if isinstance(activation, nn.Identity) else _first(made, activation)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made while the program runs, so it cannot be found by its name: copies make it again.
        return (_blank, (self.float_class,), *super().__reduce_ex__(protocol)[2:])


def _stand_in(module: nn.Module, name: str, value: Any) -> Any:
    """Makes a value an attribute of a module, past what the module does when it is set, and returns the one before."""
    if name in module.__dict__:  # made of other parameters: by a pruner, or by FullyShardedDataParallel
        before: Any = module.__dict__[name]
        object.__setattr__(module, name, value)
    else:
        before = module._parameters[name]
        module._parameters[name] = value
    return before


def _palettized(layer: DKMLayer) -> Iterator[tuple[nn.Module, str, Any]]:
    """What stands in for attributes of the modules of a layer during its forward pass."""
    for within, parameter in layer.palettized_places:
        module = layer.get_submodule(within) if within else layer
        fake: Any = module._modules[parameter + _SUFFIX]
        if is_pruned(module, parameter):
            fake.keep_zero()
        yield module, parameter, fake(getattr(module, parameter))
    if isinstance(layer, nn.RNNBase):
        # It keeps a list of its weights, and makes it anew when its attributes are not those that it had seen.
        flat = [getattr(layer, name, None) for name in layer._flat_weights_names]
        yield layer, "_flat_weights", flat
        yield layer, "_flat_weight_refs", [None if one is None else weakref.ref(one) for one in flat]


def _first(made: Any, activation: Callable[[Tensor], Tensor]) -> Any:
    """The output of a layer whose tensor, or first tensor, has passed the activation."""
    if isinstance(made, PackedSequence):
        return made._replace(data=activation(made.data))
    if isinstance(made, tuple) and made:
        return (_first(made[0], activation), *made[1:])
    return activation(made) if isinstance(made, Tensor) else made


_PREPARED: dict[type[nn.Module], type[DKMLayer]] = {}


def prepared_class(cls: type[nn.Module]) -> type[DKMLayer]:
    """The class of the prepared layers of a class.

    >>> issubclass(prepared_class(nn.Linear), nn.Linear), prepared_class(nn.Linear) is prepared_class(nn.Linear)
    (True, True)
    """
    if cls not in _PREPARED:
        members = {"float_class": cls, "__module__": cls.__module__}
        _PREPARED[cls] = type(f"DKM{cls.__name__}", (DKMLayer, cls), members)
    return _PREPARED[cls]


def _blank(cls: type[nn.Module]) -> DKMLayer:
    """A prepared layer without any state yet."""
    made = prepared_class(cls)
    return made.__new__(made)


def insert(layer: nn.Module, fakes: dict[Place, FakePalettize], activation: nn.Module) -> None:
    """Prepares a layer: the weights of the dict pass its fakes."""
    for place, fake in fakes.items():
        place.module(layer).add_module(place.parameter + _SUFFIX, fake)
    layer.add_module(_ACTIVATION, activation)
    vars(layer)["palettized_places"] = tuple(fakes)
    layer.__class__ = prepared_class(type(layer))


def is_pruned(module: nn.Module, parameter: str) -> bool:
    """Whether a parameter is pruned before each forward.

    >>> from torch.nn.utils import prune
    >>> is_pruned(prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5), "weight"), is_pruned(nn.Linear(4, 4), "weight")
    (True, False)
    """
    return f"{parameter}_orig" in module._parameters and f"{parameter}_mask" in module._buffers


def is_free(module: nn.Module, parameter: str) -> bool:
    """Whether nothing else has the place of a weight's fake, as a module that is prepared for quantization does."""
    return not hasattr(module, parameter + _SUFFIX)


def remove(layer: DKMLayer) -> None:
    """Makes a layer again what it was before `insert`."""
    for place in layer.palettized_places:
        place.module(layer)._modules.pop(place.parameter + _SUFFIX, None)
    del layer._modules[_ACTIVATION]
    del vars(layer)["palettized_places"]
    cls: type[nn.Module] = type(layer)
    if "float_class" in vars(cls):
        layer.__class__ = layer.float_class  # type: ignore[assignment]
    else:  # fully_shard has derived a class of it
        bases = tuple(vars(base).get("float_class", base) for base in cls.__bases__)
        layer.__class__ = type(cls.__name__.replace("DKM", ""), bases, dict(vars(cls)))


def pad(model: nn.Module) -> None:
    """Keeps a TransformerEncoder with prepared layers from nested tensors, which only torch's fused attention takes."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(inner, DKMLayer) for inner in module.modules()):
            vars(module).update(_dkm_nested_before=module.use_nested_tensor, use_nested_tensor=False)


def unpad(model: nn.Module) -> None:
    """Takes `pad` back."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and "_dkm_nested_before" in vars(module):
            vars(module)["use_nested_tensor"] = vars(module).pop("_dkm_nested_before")


class Held(NamedTuple):
    """A weight that passes a fake: the module that holds both, and the name of the parameter."""

    module: nn.Module
    parameter: str
    fake: FakePalettize


def held(model: nn.Module) -> Iterator[Held]:
    """Every weight of the model that passes a `FakePalettize`; a shared one comes once for each of its places."""
    for module in model.modules():
        for name, child in module._modules.items():
            if isinstance(child, FakePalettize) and name.endswith(_SUFFIX):
                yield Held(module, name[: -len(_SUFFIX)], child)
