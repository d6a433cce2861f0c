"""Palettization weighted by how much the loss depends on each weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from palettizer._budget import Budget
from palettizer.torch._settings import at_least, setting
from palettizer.torch.base_model_optimizer import BaseDataCalibratedModelOptimizer
from palettizer.torch.palettization._io import safetensors
from palettizer.torch.palettization._plan.compressor import Compressor
from palettizer.torch.palettization._plan.budget import Sensitivities
from palettizer.torch.palettization._plan.config import BudgetedConfig, ModulePalettizerConfig
from palettizer.torch.palettization._plan.plan import Plan, make_plan
from palettizer.torch.palettization._plan.sharding import by_the_first, distributed, is_sharded, wrapped
from palettizer.torch.palettization._sensitivity.gradients import LossFunction, compute
from palettizer.torch.palettization._sensitivity.source import stored, strings


@dataclass
class ModuleSKMPalettizerConfig(ModulePalettizerConfig):
    """How the weights of a module are palettized.

    The settings are those of `ModulePostTrainingPalettizerConfig` without `enable_fast_kmeans_mode` and
    `rounding_precision`; `n_bits` may not be None.

    >>> ModuleSKMPalettizerConfig(n_bits=None)
    Traceback (most recent call last):
    TypeError: n_bits of ModuleSKMPalettizerConfig must be int, found None (NoneType)
    """

    n_bits: int = setting(4, int)
    enable_per_channel_scale: bool = setting(False, bool, optional=True, cast=bool)
    weight_threshold: int = setting(0, int, at_least(0))


@dataclass
class SKMPalettizerConfig(BudgetedConfig):
    """Which modules are palettized how, and with how many samples. Without arguments: all, with the defaults.

    Args:
        global_config: for all modules that nothing below matches.
        module_type_configs: by class, or by its name in torch.nn.
        module_name_configs: by qualified name, or a regular expression that matches all of it; also of a parameter of
            two or more dimensions that is no layer's weight.
        calibration_nsamples: how many items of the data loader the sensitivities are computed of.
        budget: a size or a quality that bits are chosen for: see `palettizer.torch.palettization.Budget`. The bits and the
            granularity of `global_config` then count for nothing.

    >>> SKMPalettizerConfig.from_dict({"calibration_nsamples": 16}).global_config.n_bits
    4
    """

    module_config = ModuleSKMPalettizerConfig

    calibration_nsamples: int = setting(128, int)


class SKMPalettizer(Compressor, BaseDataCalibratedModelOptimizer):
    """Palettizes the weights of a model by k-means, where each element counts as much as the loss depends on it.

    The sensitivity of an element is its squared gradient, summed over some samples (the diagonal of the Fisher
    information), as in `SqueezeLLM <https://arxiv.org/abs/2306.07629>`_. Otherwise this is what
    `PostTrainingPalettizer` does.

    Under `torch.distributed` (`torchrun`) each process takes its share of the samples; give all of them the same data
    loader. A model in shards (`fully_shard`, or `FullyShardedDataParallel` with use_orig_params=True) is gathered a
    layer at a time and palettized in place.

    Args:
        model: the model.
        config: how, and with how many samples; without one, 4 bits for every weight and 128 samples.

    >>> import torch.nn as nn
    >>> model = nn.Sequential(nn.Conv2d(1, 20, (3, 3)), nn.ReLU(), nn.Conv2d(20, 20, (3, 3)))
    >>> dataloader = [(torch.rand(1, 1, 8, 8), torch.rand(1, 20, 4, 4)) for _ in range(16)]
    >>> def loss_fn(model, data):
    ...     inp, target = data
    ...     return nn.functional.mse_loss(model(inp), target)
    >>> config = SKMPalettizerConfig.from_dict({"global_config": {"n_bits": 4}, "calibration_nsamples": 16})
    >>> compressor = SKMPalettizer(model, config)
    >>> compressed = compressor.compress(dataloader=dataloader, loss_fn=loss_fn, progress=False)
    >>> len(compressed[2].weight.unique())
    16
    """

    _config_class = SKMPalettizerConfig
    _config: SKMPalettizerConfig

    def __init__(self, model: torch.nn.Module, config: SKMPalettizerConfig | None = None) -> None:
        super().__init__(model, config)

    def compute_sensitivity(
        self,
        dataloader: Iterable[Any],
        loss_fn: LossFunction,
        sensitivity_path: str | None = None,
        num_sensitivity_workers: int = 1,
        fsdp_auto_wrap_policy: Any = None,
        *,
        progress: bool = True,
    ) -> dict[str, torch.Tensor]:
        """Computes the sensitivities of the parameters.

        Args:
            dataloader: an iterable of samples; the first calibration_nsamples items are used, whatever they are.
            loss_fn: takes the model and an item, and returns the loss, a scalar tensor.
            sensitivity_path: where to write them, as safetensors.
            num_sensitivity_workers: accepted; the work is done in this process. To share it, run the script with
                torchrun: each process takes its part of the samples.
            fsdp_auto_wrap_policy: with several processes, how to cut the model into shards while gradients are
                computed: an object with get_policy(), or what FullyShardedDataParallel takes.
            progress: show a progress bar, if tqdm is installed.

        Returns:
            Parameter name -> float32 tensor of its shape, above 0 and up to 1: of every parameter that a gradient
            reached, and of every weight that would be palettized.

        Raises:
            TypeError: the data, the function or its result is of a wrong type.
            ValueError: no samples, a loss that is no scalar or depends on no weight, gradients that are not finite.

        The model is as it was afterwards: its mode, its gradients and its buffers.
        """
        if sensitivity_path is not None:
            safetensors.check_place(sensitivity_path)
        plan = make_plan(self._model, self._config)
        tensors, largest = self._compute(plan, True, dataloader, loss_fn, fsdp_auto_wrap_policy, progress)
        if sensitivity_path is not None:
            by_the_first(lambda: safetensors.save(tensors, sensitivity_path, strings(largest)))
        return tensors

    def compress(  # type: ignore[override]
        self,
        dataloader: Iterable[Any] | None = None,
        loss_fn: LossFunction | None = None,
        sensitivity_path: str | None = None,
        num_kmeans_workers: int = 1,
        num_sensitivity_workers: int = 1,
        inplace: bool = False,
        fsdp_auto_wrap_policy: Any = None,
        *,
        budget: Budget | None = None,
        progress: bool = True,
    ) -> torch.nn.Module:
        """Palettizes the weights and returns the model.

        Args:
            dataloader: samples to compute sensitivities with; not needed with sensitivity_path.
            loss_fn: takes the model and a sample and returns the loss; not needed with sensitivity_path.
            sensitivity_path: a file of compute_sensitivity, or of coremltools, to read the sensitivities from.
            num_kmeans_workers: threads to use.
            num_sensitivity_workers: as in compute_sensitivity.
            inplace: change the model itself; otherwise a copy is changed and returned.
            fsdp_auto_wrap_policy: as in compute_sensitivity.
            budget: a size that bits are chosen for, in the place of the config's. What an error costs is then what its
                squares come to, weighed by the sensitivities.
            progress: show a progress bar, if tqdm is installed.

        Raises:
            TypeError: neither sensitivity_path nor both of dataloader and loss_fn; else as compute_sensitivity.
            ValueError: as compute_sensitivity; NaN or infinite weights; a sensitivity file of another model. The model
                is as it was.
        """
        if sensitivity_path is None and (dataloader is None or loss_fn is None):
            missing = " and ".join(n for n, v in (("dataloader", dataloader), ("loss_fn", loss_fn)) if v is None)
            raise TypeError(f"compress needs {missing}, or sensitivity_path")
        budget = self._budget(budget)
        plan = self._plan(inplace, budget)
        if sensitivity_path is not None:
            sensitivities = stored(sensitivity_path, plan.weights)
        else:
            assert dataloader is not None and loss_fn is not None
            tensors, largest = self._compute(plan, False, dataloader, loss_fn, fsdp_auto_wrap_policy, progress)
            sensitivities = Sensitivities(
                of=lambda weight: tensors[weight.name].reshape(-1).numpy(),
                largest=lambda weight: largest.get(weight.name),
                release=lambda weight: tensors.pop(weight.name),
            )
        return self._palettize(plan, budget, max(1, num_kmeans_workers), sensitivities, inplace, progress)

    def _compute(
        self,
        plan: Plan,
        all_parameters: bool,
        dataloader: Iterable[Any],
        loss_fn: LossFunction,
        policy: Any,
        progress: bool,
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        model = self._model
        if policy is not None and distributed() and not is_sharded(model):
            model = wrapped(model, policy)
            plan = make_plan(model, self._config)
        others = plan.others() if all_parameters else []
        nsamples = self._config.calibration_nsamples
        return compute(model, plan.weights, others, dataloader, loss_fn, nsamples, progress)
