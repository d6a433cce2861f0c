"""The kinds of layers: which parameters of which classes of modules are palettized. There is no other table of them.

A subclass is what its class is. Classes of other packages are known by their names, and those packages are not imported.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize


class Place(NamedTuple):
    """A module within a layer, by its name there, and the name of one of its parameters."""

    within: str
    parameter: str

    def module(self, layer: nn.Module) -> nn.Module:
        """The module that holds the parameter."""
        return layer.get_submodule(self.within)


class Kind(NamedTuple):
    """What is palettized of a class of modules."""

    weights: str = "weight"
    """A regular expression of the names of the parameters."""
    axes: tuple[int, int] = (0, 1)
    """Of the output channels, and of the input channels."""
    n_bits: int = 2
    """Of differentiable k-means without `n_bits`, as in coremltools."""
    inside: tuple[Place, ...] = ()
    """Weights of modules inside that are used without calling those modules."""
    in_training: bool = False
    """Palettized by differentiable k-means alone, as in coremltools."""
    apart: bool = False
    """Each weight by itself, rather than all or none of them."""
    stays_dense: bool = False
    """`coremltools.convert` takes the weights, but fails on a record of how they are palettized."""
    conversion: str = ""
    """What `coremltools.convert` will not do with a palettized layer."""

    def has(self, parameter: str) -> bool:
        """Whether a parameter of that name is one of the weights."""
        return re.fullmatch(self.weights, parameter) is not None


_FORWARD = Kind()
_TRANSPOSED = Kind(axes=(1, 0))
_RECURRENT = Kind(r"weight_(ih|hh|hr)_l\d+(_reverse)?", apart=True)
_CELL = Kind("weight_(ih|hh)", apart=True)
_DENSE = _RECURRENT._replace(
    stays_dense=True,
    conversion="coremltools.convert has no compressed form of it and makes it dense: "
    "palettize the converted model by palettizer.coreml with mode 'unique', which loses nothing",
)


BEYOND = "coremltools.convert does not know such a layer, palettized or not"


def _beyond(kind: Kind) -> Kind:
    return kind._replace(conversion=BEYOND)


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind(n_bits=4),
    nn.Conv1d: _FORWARD,
    nn.Conv2d: _FORWARD,
    nn.Conv3d: _FORWARD,
    nn.LayerNorm: Kind(in_training=True),
    # With sizes of their own, query, key and value have a parameter each.
    nn.MultiheadAttention: Kind("in_proj_weight|[qkv]_proj_weight", inside=(Place("out_proj", "weight"),)),
    nn.Embedding: _FORWARD,
    nn.ConvTranspose1d: _TRANSPOSED,
    nn.ConvTranspose2d: _TRANSPOSED,
    nn.ConvTranspose3d: _TRANSPOSED,
    nn.EmbeddingBag: _beyond(_FORWARD),
    nn.Bilinear: _beyond(_FORWARD),
    nn.RNN: _RECURRENT,
    nn.LSTM: _DENSE,
    nn.GRU: _DENSE,
    nn.RNNCell: _CELL,
    nn.LSTMCell: _beyond(_CELL),
    nn.GRUCell: _beyond(_CELL),
}

NAMED: dict[str, Kind] = {
    # A Linear whose weight is (input, output): all projections of GPT-2.
    "Conv1D": Kind(axes=(1, 0), n_bits=4),
}
"""Classes of other packages by their names."""

_PACKAGES = {"Conv1D": "transformers"}

BARE = Kind("(?!)", apart=True)
"""Of a parameter that is no layer's weight, and is palettized because a config names it."""

NAMES = (*(cls.__name__ for cls in KINDS), *NAMED)
"""The names of the classes of all kinds."""


def class_kind(cls: Any) -> Kind | None:
    """The kind of a class of modules, or None.

    >>> class Own(nn.Linear): ...
    >>> class_kind(Own) is class_kind(nn.Linear), class_kind(nn.ReLU)
    (True, None)
    """
    for base in getattr(cls, "__mro__", ()):
        if base in KINDS:
            return KINDS[base]
        if _PACKAGES.get(base.__name__) == base.__module__.partition(".")[0]:
            return NAMED[base.__name__]
    return None


def kind_of(module: nn.Module) -> Kind | None:
    """The kind of a module, or None."""
    return class_kind(type(module))


def weights(layer: nn.Module) -> list[Place]:
    """The weights of a layer, those that are computed of other parameters included.

    >>> weights(nn.MultiheadAttention(8, 2))
    [Place(within='', parameter='in_proj_weight'), Place(within='out_proj', parameter='weight')]
    >>> weights(nn.LayerNorm(8, elementwise_affine=False)), weights(nn.ReLU())
    ([], [])
    """
    kind = kind_of(layer)
    if kind is None:
        return []
    own = [name for name, value in layer._parameters.items() if value is not None and kind.has(name)]
    return [*(Place("", name) for name in [*own, *computed(layer, kind)]), *kind.inside]


def computed(layer: nn.Module, kind: Kind) -> dict[str, str]:
    """The weights that are computed of other parameters, and so are no parameters themselves, with what to do about it."""
    found = {}
    if parametrize.is_parametrized(layer):
        parametrized: Any = layer.parametrizations
        problem = "is computed by a parametrization; remove it first with remove_parametrizations"
        found.update({name: problem for name in parametrized if kind.has(name)})
    for name, value in vars(layer).items():
        if isinstance(value, Tensor) and name not in layer._parameters and kind.has(name):
            found[name] = "is computed before each forward (weight_norm or pruning); make it permanent first"
    return found
