"""Layers of torch.nn whose weights pass a `FakePalettize` on their way into the layer's function.

A layer is prepared by giving it another class, a subclass of its own, and children beside its parameters. So the layer,
its parameters and their names, its hooks, and optimizers that know it all stay what they are; to finalize is to take
both away again. Each forward is that of the layer of torch, with the weight replaced.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type

from torch import Tensor, nn
from torch.nn import functional as F

from palettizer.torch.palettization._fake_palettize import FakePalettize

_SUFFIX = "_fake_quant"
_ACTIVATION = "activation_post_process"


class DKMLayer(nn.Module):
    """Base of the prepared layers: beside each weight a child with its name and `_fake_quant` makes the one to use.

    `activation_post_process` is what the output passes at the end.
    """

    float_class: ClassVar[Type[nn.Module]]
    """The layer's own class."""

    weight_fake_quant: Callable[[Tensor], Tensor]
    activation_post_process: Callable[[Tensor], Tensor]


class DKMLinear(DKMLayer, nn.Linear):
    float_class = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        return self.activation_post_process(F.linear(input, self.weight_fake_quant(self.weight), self.bias))


class DKMEmbedding(DKMLayer, nn.Embedding):
    float_class = nn.Embedding

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight_fake_quant(self.weight)
        found = F.embedding(
            input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )
        return self.activation_post_process(found)


class DKMLayerNorm(DKMLayer, nn.LayerNorm):
    float_class = nn.LayerNorm

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight_fake_quant(self.weight)
        return self.activation_post_process(F.layer_norm(input, self.normalized_shape, weight, self.bias, self.eps))


class _DKMConv(DKMLayer, nn.modules.conv._ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight_fake_quant(self.weight)
        return self.activation_post_process(self._conv_forward(input, weight, self.bias))


class DKMConv1d(_DKMConv, nn.Conv1d):
    float_class = nn.Conv1d


class DKMConv2d(_DKMConv, nn.Conv2d):
    float_class = nn.Conv2d


class DKMConv3d(_DKMConv, nn.Conv3d):
    float_class = nn.Conv3d


class _DKMConvTranspose(DKMLayer, nn.modules.conv._ConvTransposeNd):
    _convolve: ClassVar[Callable[..., Tensor]]

    def forward(self, input: Tensor, output_size: Optional[List[int]] = None) -> Tensor:
        if self.padding_mode != "zeros":
            raise ValueError(f"Only `zeros` padding mode is supported for {self.float_class.__name__}")
        geometry: Any = (self.stride, self.padding, self.kernel_size, len(self.kernel_size), self.dilation)
        output_padding = self._output_padding(input, output_size, *geometry)
        weight = self.weight_fake_quant(self.weight)
        made = self._convolve(
            input, weight, self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation
        )
        return self.activation_post_process(made)


class DKMConvTranspose1d(_DKMConvTranspose, nn.ConvTranspose1d):
    float_class = nn.ConvTranspose1d
    _convolve = staticmethod(F.conv_transpose1d)


class DKMConvTranspose2d(_DKMConvTranspose, nn.ConvTranspose2d):
    float_class = nn.ConvTranspose2d
    _convolve = staticmethod(F.conv_transpose2d)


class DKMConvTranspose3d(_DKMConvTranspose, nn.ConvTranspose3d):
    float_class = nn.ConvTranspose3d
    _convolve = staticmethod(F.conv_transpose3d)


class DKMMultiheadAttention(DKMLayer, nn.MultiheadAttention):
    """The output projection is a Linear inside, which is never called: its weight is palettized here."""

    float_class = nn.MultiheadAttention

    in_proj_weight_fake_quant: Callable[[Tensor], Tensor]
    q_proj_weight_fake_quant: Callable[[Tensor], Tensor]
    k_proj_weight_fake_quant: Callable[[Tensor], Tensor]
    v_proj_weight_fake_quant: Callable[[Tensor], Tensor]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor] = None,
        need_weights: bool = True,
        attn_mask: Optional[Tensor] = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Tuple[Tensor, Optional[Tensor]]:
        turn = self.batch_first and query.dim() == 3
        if turn:
            # What was one tensor stays one: then one product does for all three projections.
            turned = {id(part): part.transpose(0, 1) for part in (query, key, value)}
            query, key, value = (turned[id(part)] for part in (query, key, value))
        projections: Dict[str, Any] = {}
        in_proj_weight = None
        if self._qkv_same_embed_dim:
            in_proj_weight = self.in_proj_weight_fake_quant(self.in_proj_weight)
        else:
            projections = {
                "use_separate_proj_weight": True,
                "q_proj_weight": self.q_proj_weight_fake_quant(self.q_proj_weight),
                "k_proj_weight": self.k_proj_weight_fake_quant(self.k_proj_weight),
                "v_proj_weight": self.v_proj_weight_fake_quant(self.v_proj_weight),
            }
        out_fake: Any = self.out_proj.weight_fake_quant
        output, weights = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, in_proj_weight, self.in_proj_bias, self.bias_k,
            self.bias_v, self.add_zero_attn, self.dropout, out_fake(self.out_proj.weight), self.out_proj.bias,
            training=self.training, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            average_attn_weights=average_attn_weights, is_causal=is_causal, **projections,
        )  # fmt: skip
        return self.activation_post_process(output.transpose(0, 1) if turn else output), weights


LAYERS: Dict[Type[nn.Module], Type[DKMLayer]] = {
    layer.float_class: layer
    for layer in (
        DKMLinear, DKMEmbedding, DKMLayerNorm, DKMConv1d, DKMConv2d, DKMConv3d, DKMConvTranspose1d, DKMConvTranspose2d,
        DKMConvTranspose3d, DKMMultiheadAttention,
    )  # fmt: skip
}
"""The layers that can be prepared, by the class that a module must have exactly."""

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Their output channels lie on axis 1 of the weight."""


class Place(NamedTuple):
    """A module within a layer, by its name there, and the name of one of its parameters."""

    within: str
    parameter: str

    def module(self, layer: nn.Module) -> nn.Module:
        """The module that holds the parameter."""
        return layer.get_submodule(self.within)


def weights(layer: nn.Module) -> List[Place]:
    """The weights of a layer that is of a class in `LAYERS`, in the order of `named_parameters`.

    >>> weights(nn.MultiheadAttention(8, 2))
    [Place(within='', parameter='in_proj_weight'), Place(within='out_proj', parameter='weight')]
    >>> weights(nn.LayerNorm(8, elementwise_affine=False))
    []
    """
    if isinstance(layer, nn.MultiheadAttention):
        parts = ("in_proj_weight",) if layer._qkv_same_embed_dim else tuple(f"{part}_proj_weight" for part in "qkv")
        return [*(Place("", part) for part in parts), Place("out_proj", "weight")]
    return [] if getattr(layer, "weight", None) is None else [Place("", "weight")]


def insert(layer: nn.Module, fakes: Dict[Place, FakePalettize], activation: nn.Module) -> None:
    """Prepares a layer: weights with a fake in the dict pass it, the others stay as they are."""
    prepared = LAYERS[type(layer)]
    for place in weights(layer):
        place.module(layer).add_module(place.parameter + _SUFFIX, fakes.get(place, nn.Identity()))
    layer.add_module(_ACTIVATION, activation)
    layer.__class__ = prepared


def remove(layer: DKMLayer) -> None:
    """Makes a layer again what it was before `insert`."""
    for place in weights(layer):
        del place.module(layer)._modules[place.parameter + _SUFFIX]
    del layer._modules[_ACTIVATION]
    cls: Type[nn.Module] = type(layer)
    prepared: Tuple[type, ...] = tuple(LAYERS.values())
    if cls in prepared:
        layer.__class__ = layer.float_class  # type: ignore[assignment]
    else:  # fully_shard has derived a class of it
        bases = tuple(layer.float_class if base in prepared else base for base in cls.__bases__)
        layer.__class__ = type(cls.__name__.replace("DKM", ""), bases, dict(cls.__dict__))


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


