"""Palettization while a model is trained: the tables and the assignment are learned with the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from palettizer.torch._report import Report
from palettizer.torch.base_model_optimizer import BaseTrainingTimeModelOptimizer
from palettizer.torch.palettization._dkm.candidates import Layer
from palettizer.torch.palettization._dkm.config import DKMPalettizerConfig, ModuleDKMPalettizerConfig
from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize
from palettizer.torch.palettization._dkm.fake_quantize import FakeQuantize
from palettizer.torch.palettization._dkm.finalize import finalize_weights, weight_errors
from palettizer.torch.palettization._dkm.layers import DKMLayer, held, insert, pad, prepared_class
from palettizer.torch.palettization._dkm.plan import DKMPlan, SoftWeight, make_plan
from palettizer.torch.palettization._dkm.pruned import check_order
from palettizer.torch.palettization._dkm.qconfig import tell
from palettizer.torch.palettization._dkm.report import plan_report
from palettizer.torch.palettization._plan.layers import BARE, KINDS, Place
from palettizer.torch.palettization._plan.palettize import check_values
from palettizer.torch.palettization._plan.sharding import is_sharded

__all__ = ["DKMPalettizer", "DKMPalettizerConfig", "ModuleDKMPalettizerConfig", "Palettizer"]


class Palettizer(BaseTrainingTimeModelOptimizer):
    """Base of the palettizers of a model in training."""


class DKMPalettizer(Palettizer):
    """Palettizes the weights of a model by differentiable k-means, in a training loop of one's own.

    `prepare` puts a `FakePalettize` beside each weight of Linear, Embedding, EmbeddingBag, LayerNorm, Bilinear, Conv1d
    to Conv3d, ConvTranspose1d to ConvTranspose3d, MultiheadAttention, RNN, LSTM and GRU and their cells, and Conv1D of
    transformers; subclasses count. Parameters of two or more dimensions that are no layer's weight are palettized where
    they are named in module_name_configs. The parameters stay, so optimizers made before or after train them. Wrap the model in DistributedDataParallel, FullyShardedDataParallel or
    `fully_shard`, or compile it, after that. `finalize` leaves ordinary modules, as post-training palettization does.

    Args:
        model: the model.
        config: how; without one, 4 bits for Linear and 2 for all others.

    Example:
        >>> from torch.nn import functional as F
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        >>> config = DKMPalettizerConfig.from_dict({"global_config": {"n_bits": 2, "weight_threshold": 500}})
        >>> palettizer = DKMPalettizer(model, config)
        >>> model = palettizer.prepare(inplace=True)
        >>> optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        >>> for _ in range(3):
        ...     loss = F.cross_entropy(model(torch.randn(8, 64)), torch.zeros(8, dtype=torch.int64))
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        ...     palettizer.step()
        >>> model = palettizer.finalize(inplace=True)
        >>> len(model[0].weight.unique())
        4
    """

    _config_class = DKMPalettizerConfig
    _supported_modules = tuple(KINDS)
    _plan: DKMPlan | None = None
    _errors: dict[str, float] = {}

    def __init__(self, model: nn.Module, config: DKMPalettizerConfig | None = None) -> None:
        super().__init__(model, config)

    def prepare(self, inplace: bool = False) -> nn.Module:
        """Makes the layers of the model palettize their weights, puts the model in training mode, and returns it.

        Args:
            inplace: change the model itself; otherwise a copy is changed and returned.

        Raises:
            ValueError: NaN or infinite weights, settings that cannot be, parameters in shards. The model is as it was.
            RuntimeError: the model has been prepared before, or a pruner has been prepared for it.
        """
        if self._plan is not None or _is_prepared(self._model):
            raise RuntimeError("the model has been prepared already; finalize it first, or go on training it")
        if is_sharded(self._model):
            raise ValueError("the parameters of the model are sharded; prepare the model before it is wrapped")
        model = self._model if inplace else copy.deepcopy(self._model)
        config = self._config
        assert isinstance(config, DKMPalettizerConfig)
        check_order(model, config)
        plan = make_plan(model, config)
        check_values(weight.owners[0] for weight in plan.weights.values())
        fakes = {identity: _fake(weight) for identity, weight in plan.weights.items()}
        places: dict[int, dict[Place, FakePalettize]] = {}
        activations: dict[int, nn.Module] = {}
        for layer in plan.layers:
            prepared_class(type(layer.module))
            key, own = id(layer.module), {place: fakes[owner.identity] for place, owner in layer.owners.items()}
            places.setdefault(key, {}).update(own)
            if layer.kind is not BARE or key not in activations:
                activations[key] = _activation(layer)
        for layer in plan.layers:
            if id(layer.module) in places:
                insert(layer.module, places.pop(id(layer.module)), activations[id(layer.module)])
        pad(model)
        tell(model)
        self._model, self._plan = model.train(), plan
        return model

    def step(self) -> None:
        """Counts a step of training. Modules with milestone m begin to be palettized with the call after m others.

        Raises:
            RuntimeError: the model is not prepared.
        """
        self._check_prepared("step")
        for fake in _fakes(self._model):
            fake.step()

    def enable_fake_palett(self, flag: bool) -> None:
        """Begins to palettize all prepared weights, whatever their milestones, or lets them pass as they are."""
        for fake in _fakes(self._model):
            fake.enable_fake_palett(flag)

    def finalize(self, model: nn.Module | None = None, inplace: bool = False) -> nn.Module:
        """Gives each palettized weight the nearest entries of its table, and the layers their own classes back.

        The model is in evaluation mode then, and carries the buffers that `coremltools.convert` reads. Weights whose
        milestone has not come stay as they are; those that were never used in training take their tables from k-means.
        Activations are not quantized any more, as with coremltools: what was learned is in the weights.

        Args:
            model: the prepared model, perhaps wrapped for distributed training, or a copy of it; without one, what
                `prepare` returned.
            inplace: change the model itself; otherwise a copy is changed and returned.

        Raises:
            ValueError: NaN or infinite weights, or parameters in shards that cannot be copied. The model is as it was.
            RuntimeError: the model is not prepared.
        """
        self._check_prepared("finalize")
        model = self._model if model is None else model
        if not _is_prepared(model) and self._plan is not None and self._plan.weights:
            raise RuntimeError("the model has no prepared layers; was it finalized before?")
        if not inplace:
            if is_sharded(model):
                raise ValueError("a model whose parameters are sharded cannot be copied; pass inplace=True")
            model = copy.deepcopy(model)
        self._errors = finalize_weights(model)
        return model

    def report(self, model: nn.Module | None = None) -> Report:
        """What is palettized now, as a dict that prints as a table.

        The key of a palettized `weight` is its module's name, as in coremltools; other parameters have their own name.
        The columns:

        - `device`: where the weight is,
        - `error`: the root of the mean squared difference to the weight of evaluation, 0 for what is not palettized,
        - `#params`: the number of elements,
        - `#dtype`: how many centroids there are, their dtype, the permutation, and their length,
        - `reason`: why a parameter is not palettized, or not yet, or which one it shares its values with,
        - `conversion`: what `coremltools.convert` will not do with it, if there is such a parameter.

        What does not apply is -1. Before `prepare` the report is empty; once the model is finalized, it is about that.

        Args:
            model: the prepared model, where it is wrapped in FullyShardedDataParallel, or a copy of it; without one,
                what `prepare` returned.
        """
        if self._plan is None:
            return Report()
        model = self._model if model is None else model
        errors = weight_errors(model) if _is_prepared(model) else self._errors
        return plan_report(self._plan, errors)

    def _check_prepared(self, what: str) -> None:
        if self._plan is None:
            raise RuntimeError(f"{what} comes after prepare, which has not been called")


def _is_prepared(model: nn.Module) -> bool:
    return any(isinstance(module, DKMLayer) for module in model.modules())


def _fakes(model: nn.Module) -> list[FakePalettize]:
    """Those of a model, a shared one once."""
    return list({id(place.fake): place.fake for place in held(model)}.values())


def _fake(weight: SoftWeight) -> FakePalettize:
    parameter = weight.parameters()[0]
    return FakePalettize(
        tuple(parameter.shape), weight.settings, weight.config.milestone, parameter.dtype, parameter.device, weight.name,
        weight.config,
    )  # fmt: skip


_RANGES = {torch.qint8: (-128, 127), torch.quint8: (0, 255)}


def _activation(layer: Layer) -> nn.Module:
    config = layer.config
    if config is None or layer.kind is BARE or not config.quantize_activations or config.dtype == torch.float32:
        return nn.Identity()
    least, most = _RANGES[config.dtype]
    if config.quant_min < least or config.quant_max > most:
        raise ValueError(
            f"the config of {layer.name} quantizes activations: {str(config.dtype)[6:]} holds {least} to {most}, "
            f"found quant_min {config.quant_min} and quant_max {config.quant_max}; give a range within"
        )
    return FakeQuantize(config.quant_min, config.quant_max, next(layer.module.parameters()).device)
