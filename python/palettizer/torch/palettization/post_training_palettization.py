"""Palettization of a finished model, without data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palettizer._budget import Budget
from palettizer.torch._settings import at_least, setting
from palettizer.torch.base_model_optimizer import BasePostTrainingModelOptimizer
from palettizer.torch.palettization._plan.compressor import Compressor
from palettizer.torch.palettization._plan.budget import Sensitivities
from palettizer.torch.palettization._plan.config import BudgetedConfig, ModulePalettizerConfig


@dataclass
class ModulePostTrainingPalettizerConfig(ModulePalettizerConfig):
    """How the weights of a module are palettized.

    Args:
        n_bits: bits of an index, one of 1, 2, 3, 4, 6 and 8; a lookup table has 2^n_bits entries.
        lut_dtype: `torch.int8` or `torch.uint8` (or "int8", "uint8") to store the entries as integers with a scale;
            None keeps the weight's dtype.
        granularity: "per_tensor" for one table, "per_grouped_channel" for one for each `group_size` channels.
        group_size: channels in a group. Needed with "per_grouped_channel", otherwise None.
        channel_axis: 0 groups output channels, 1 input channels; vectors lie along the same axis.
        cluster_dim: number of consecutive channels that share an index, as a vector; None means 1.
        enable_per_channel_scale: divide every output channel by its largest magnitude first. Not with vectors.
        enable_fast_kmeans_mode: accepted and without effect: there is nothing to gain by rounding.
        rounding_precision: accepted and without effect.
        weight_threshold: weights with this many elements or fewer are left alone. coremltools has no such field here.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value that cannot be.
        AssertionError: values that do not go together.

    >>> config = ModulePostTrainingPalettizerConfig(n_bits=2, granularity="per_grouped_channel", group_size=8)
    >>> config.granularity
    <PalettizationGranularity.per_grouped_channel: 'per_grouped_channel'>
    >>> config.group_size = None
    Traceback (most recent call last):
    AssertionError: group_size of ModulePostTrainingPalettizerConfig must be given when granularity is per_grouped_channel
    """

    enable_fast_kmeans_mode: bool | None = setting(True, bool, optional=True)
    rounding_precision: int | None = setting(4, int, optional=True)
    weight_threshold: int = setting(0, int, at_least(0))


@dataclass
class PostTrainingPalettizerConfig(BudgetedConfig):
    """Which modules are palettized how. Without arguments: all, with the defaults.

    Args:
        global_config: for all modules that nothing below matches.
        module_type_configs: by class, or by its name in torch.nn.
        module_name_configs: by qualified name, or a regular expression that matches all of it; also of a parameter of
            two or more dimensions that is no layer's weight.
        budget: a size or a quality that bits are chosen for: see `palettizer.torch.palettization.Budget`. The bits and the
            granularity of `global_config` then count for nothing.

    A value of None leaves the modules alone. Names go before types, types before the global config.

    >>> config = PostTrainingPalettizerConfig.from_dict({
    ...     "global_config": {"n_bits": 4},
    ...     "module_name_configs": {"head": None},
    ... })
    >>> config.set_module_type(torch.nn.Linear, ModulePostTrainingPalettizerConfig(n_bits=8)).global_config.n_bits
    4
    """

    module_config = ModulePostTrainingPalettizerConfig


class PostTrainingPalettizer(Compressor, BasePostTrainingModelOptimizer):
    """Palettizes the weights of a model by k-means.

    Weights of Linear, Embedding, EmbeddingBag, Bilinear, Conv1d to Conv3d, ConvTranspose1d to ConvTranspose3d,
    MultiheadAttention, RNN, LSTM and GRU and their cells, and Conv1D of transformers are palettized; subclasses count.
    So are parameters of two or more dimensions that are no layer's weight, where they are named in module_name_configs.
    A scalar table is optimal. After `compress` the model has ordinary dense weights with
    at most 2^n_bits values in each group, and buffers that `coremltools.convert` reads.

    Args:
        model: the model.
        config: how; without one, 4 bits for every weight.

    >>> from collections import OrderedDict
    >>> import torch.nn as nn
    >>> model = nn.Sequential(OrderedDict({
    ...     "conv": nn.Conv2d(1, 20, (3, 3)),
    ...     "relu1": nn.ReLU(),
    ...     "conv2": nn.Conv2d(20, 20, (3, 3)),
    ... }))
    >>> config = PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": 4}})
    >>> palettizer = PostTrainingPalettizer(model, config)
    >>> palettized = palettizer.compress(progress=False)
    >>> len(palettized.conv2.weight.unique())
    16
    >>> palettizer.report()["conv2.weight"]["palettization_mode"]
    'num_clusters=16, cluster_dim=1'

    With a budget, the bits of each weight are chosen so that least is lost:

    >>> from palettizer.torch.palettization import Budget
    >>> palettized = palettizer.compress(budget=Budget(target_bpw=5.5), progress=False)
    >>> palettizer.report()["conv2.weight"]["form"]
    'n_bits=4'
    """

    _config_class = PostTrainingPalettizerConfig

    def __init__(self, model: torch.nn.Module, config: PostTrainingPalettizerConfig | None = None) -> None:
        super().__init__(model, config)

    def compress(  # type: ignore[override]
        self,
        num_kmeans_workers: int = 1,
        inplace: bool = False,
        *,
        budget: Budget | None = None,
        progress: bool = True,
    ) -> torch.nn.Module:
        """Palettizes the weights and returns the model.

        Args:
            num_kmeans_workers: threads to use.
            inplace: change the model itself; otherwise a copy is changed and returned.
            budget: a size or a quality that bits are chosen for, in the place of the config's.
            progress: show a progress bar, if tqdm is installed.

        Raises:
            ValueError: NaN or infinite weights, settings that cannot be, or a budget that cannot be met. The model is as it
                was.

        With `inplace`, whatever ends the work early leaves the model as it was, or palettized as a whole.
        """
        budget = self._budget(budget)
        plan = self._plan(inplace, budget)
        return self._palettize(plan, budget, max(1, num_kmeans_workers), Sensitivities(), inplace, progress)
