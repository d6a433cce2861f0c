"""Palettization fitted to what the layers compute: outputs close to outputs, rather than weights to weights."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from palettizer import _native
from palettizer._budget import Budget
from palettizer._progress import shown
from palettizer.torch._report import Report
from palettizer.torch._settings import above, at_least, one_of, setting
from palettizer.torch.base_model_optimizer import BaseDataCalibratedModelOptimizer
from palettizer.torch.palettization._io import safetensors
from palettizer.torch.palettization._layerwise import file
from palettizer.torch.palettization._layerwise.calibrate import calibrated
from palettizer.torch.palettization._layerwise.collect import Collector, Memory, Stage
from palettizer.torch.palettization._layerwise.fitting import fitted, price, quick, start
from palettizer.torch.palettization._layerwise.outputs import Outputs
from palettizer.torch.palettization._layerwise.samples import ForwardFunction, Samples, calibrating
from palettizer.torch.palettization._plan.compressor import Compressor
from palettizer.torch.palettization._plan.budget import Allotment, Chosen
from palettizer.torch.palettization._plan.config import BudgetedConfig, ModulePalettizerConfig
from palettizer.torch.palettization._plan.palettize import Made
from palettizer.torch.palettization._plan.plan import Plan, Weight, make_plan
from palettizer.torch.palettization._plan.sharding import distributed, is_sharded
from palettizer.torch.palettization._sensitivity.gradients import LossFunction

_logger = logging.getLogger(__name__)


@dataclass
class ModuleLayerwisePalettizerConfig(ModulePalettizerConfig):
    """How the weights of a module are palettized.

    Args:
        n_bits: as in `ModuleSKMPalettizerConfig`, and so are `lut_dtype`, `granularity`, `group_size`, `channel_axis`,
            `cluster_dim`, `enable_per_channel_scale` and `weight_threshold`. Vectors, and groups along the input
            channels, are palettized by k-means.
        algorithm: "lnq" makes rounds of best tables and best indices; "gptq" is one pass over the columns that passes
            errors on, and the best tables of that: several times as fast, and nearly as good from 3 bits up.
        rounds: how many rounds "lnq" makes.
        damping: how much of the mean of the diagonal is added to the diagonal of the second moments, so that few samples
            do not mislead; None for 0.03 with a loss function, 0.1 without.

    >>> ModuleLayerwisePalettizerConfig(n_bits=3, algorithm="gptq").rounds
    2
    """

    n_bits: int = setting(4, int)
    enable_per_channel_scale: bool = setting(False, bool, optional=True, cast=bool)
    algorithm: str = setting("lnq", str, one_of("lnq", "gptq"))
    rounds: int = setting(2, int, at_least(0))
    damping: float | None = setting(None, float, above(0.0), optional=True, convert=lambda v: _as_float(v))
    weight_threshold: int = setting(0, int, at_least(0))


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names(value: Any) -> Any:
    """A list of texts of one text, or of several."""
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


def _all_texts(where: str, value: Any) -> None:
    wrong = next((name for name in value if not isinstance(name, str)), None)
    if wrong is not None or not value:
        raise ValueError(f"{where} must name blocks by text, found {wrong!r}" if value else f"{where} is empty")


@dataclass
class LayerwisePalettizerConfig(BudgetedConfig):
    """Which modules are palettized how, and with which statistics. Without arguments: all, with the defaults.

    Args:
        global_config: for all modules that nothing below matches.
        module_type_configs: by class, or by its name in torch.nn.
        module_name_configs: by qualified name, or a regular expression that matches all of it; also of a parameter of
            two or more dimensions that is no layer's weight.
        calibration_nsamples: how many items of the data loader are looked at.
        guided_groups: with a loss function, for how many groups of a layer's output channels second moments are
            weighted by themselves; each costs as much as the first.
        layers: the blocks that are worked on one at a time: their names, or regular expressions that match all of a
            name; None for the repeated blocks of the model's lists of modules, if all statistics together need more
            than max_cached_bytes.
        max_cached_bytes: how many bytes of statistics, and of inputs of a block, are kept in memory; inputs beyond that
            go to a temporary folder.
        budget: a size or a quality that bits are chosen for: see `palettizer.torch.palettization.Budget`. The bits and the
            granularity of `global_config` then count for nothing.

    >>> LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": 3, "damping": 0.05}}).global_config.damping
    0.05
    """

    module_config = ModuleLayerwisePalettizerConfig

    calibration_nsamples: int = setting(128, int)
    guided_groups: int = setting(1, int, at_least(1))
    layers: list[str] | None = setting(None, list, _all_texts, optional=True, convert=_names)
    max_cached_bytes: int = setting(1 << 30, int, at_least(0))


class LayerwisePalettizer(Compressor, BaseDataCalibratedModelOptimizer):
    """Palettizes the weights of a model so that the outputs of its layers stay what they are.

    A look at some samples tells what the inputs of each layer are like: their second moments. Tables and indices are
    then fitted to the layer's outputs, by LNQ (`GuidedQuant <https://arxiv.org/abs/2505.07004>`_) or GPTQ with a
    table. With a loss function, an output counts as much as the loss depends on it.

    Linear layers, convolutions of all kinds, attention and transformers' `Conv1D` are fitted, also where the weights are
    shared or used without calling their modules. Embeddings are palettized by k-means, each row weighted by how often it
    is looked up; all others by k-means, and the report says why.

    Under `torch.distributed` (`torchrun`) each process takes its share of the samples; give all of them the same data
    loader.

    Args:
        model: the model.
        config: how, and with which statistics; without one, 4 bits for every weight and 128 samples.

    >>> import torch.nn as nn
    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    >>> config = LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": 2}, "calibration_nsamples": 4})
    >>> palettizer = LayerwisePalettizer(model, config)
    >>> compressed = palettizer.compress([torch.rand(2, 1, 8, 8) for _ in range(4)], progress=False)
    >>> len(compressed[3].weight.unique())
    4
    >>> palettizer.report()["3.weight"]["output_snr"] > palettizer.report()["3.weight"]["output_snr_start"]
    True
    """

    _config_class = LayerwisePalettizerConfig
    _config: LayerwisePalettizerConfig

    def __init__(self, model: torch.nn.Module, config: LayerwisePalettizerConfig | None = None) -> None:
        super().__init__(model, config)

    def report(self) -> Report:
        """What the last `compress` did, with the columns of `PostTrainingPalettizer.report` and three more.

        - `output_snr`: the power of the layer's outputs, over that of their error, in decibels; of the samples, with damping
          and without the bias,
        - `output_snr_start`: the same of the k-means that the fit starts from,
        - `fallback`: why a weight was not fitted to outputs, but palettized by k-means.
        """
        return super().report()

    def compute_statistics(
        self,
        dataloader: Iterable[Any],
        loss_fn: LossFunction | None = None,
        statistics_path: str | os.PathLike[str] | None = None,
        *,
        forward_fn: ForwardFunction | None = None,
        progress: bool = True,
    ) -> dict[str, torch.Tensor] | None:
        """Computes what palettes are fitted to, of the weights that would be palettized.

        What is in a file that is written, docs/statistics.md says.

        Args:
            dataloader: an iterable of samples; the first calibration_nsamples items are used.
            loss_fn: takes the model and an item, and returns the loss, a scalar tensor; best the sum over tokens. Without
                one, all inputs count alike.
            statistics_path: where to write them, as safetensors, a weight at a time.
            forward_fn: takes the model and an item and runs the model, where there is no loss_fn. Without one, the model
                is called with the elements of an item that is a tuple, a list or a dict, and with any other item itself.
            progress: show a progress bar, if tqdm is installed.

        Returns:
            The tensors by the names that they would have in the file; None where they were written.

        Raises:
            TypeError: the data, a function or its result is of a wrong type.
            ValueError: no samples, a loss that is no scalar, inputs that are not finite, a model in shards.

        The model is in evaluation mode meanwhile, and as it was afterwards: its modes, its gradients and its buffers.
        """
        if statistics_path is not None:
            safetensors.check_place(statistics_path)
        plan = make_plan(self._model, self._config)
        tensors: dict[str, torch.Tensor] = {}
        samples = self._samples(dataloader, loss_fn, forward_fn, progress)
        with closing(self._stages(plan, samples, statistics_path)) as found:
            for weights, of in found:
                for weight in weights:
                    statistics = of(weight)
                    if statistics_path is None:
                        tensors.update(file.tensors(weight, statistics))
        return tensors if statistics_path is None else None

    def compress(  # type: ignore[override]
        self,
        dataloader: Iterable[Any] | None = None,
        loss_fn: LossFunction | None = None,
        statistics_path: str | os.PathLike[str] | None = None,
        num_kmeans_workers: int = 1,
        inplace: bool = False,
        *,
        forward_fn: ForwardFunction | None = None,
        budget: Budget | None = None,
        progress: bool = True,
    ) -> torch.nn.Module:
        """Palettizes the weights and returns the model.

        Args:
            dataloader: samples, as in compute_statistics; not needed if the file at statistics_path is there.
            loss_fn: as in compute_statistics.
            statistics_path: a file of compute_statistics, or of another program, to read the statistics from; if there
                is none, it is written from the samples.
            num_kmeans_workers: threads to use.
            inplace: change the model itself; otherwise a copy is changed and returned.
            forward_fn: as in compute_statistics.
            budget: a size or a quality that bits are chosen for, in the place of the config's. Every form of every weight is
                fitted for that by the fast algorithm, "gptq", in a first pass over the statistics; without a
                statistics_path they are in a temporary file meanwhile. What errors do to the outputs of the model is measured
                on the first 16 samples, with or without a file of statistics; without samples, the errors of the layers'
                outputs have to do.
            progress: show a progress bar, if tqdm is installed.

        Raises:
            TypeError: neither samples nor a file of statistics; else as compute_statistics.
            ValueError: as compute_statistics; NaN or infinite weights; statistics of another model. The model is as it
                was.
        """
        there = statistics_path is not None and os.path.exists(statistics_path)
        if dataloader is None and not there:
            found = "" if statistics_path is None else f" (there is no file {os.fspath(statistics_path)})"
            raise TypeError(f"compress needs dataloader, or statistics_path{found}")
        budget = self._budget(budget)
        plan = self._plan(inplace, budget)
        threads = max(1, num_kmeans_workers)
        came_to: dict[str, Any] | None = None
        made: dict[str, Made] = {}
        more: dict[str, dict[str, Any]] = {}
        samples = None if dataloader is None else self._samples(dataloader, loss_fn, forward_fn, progress)
        with ExitStack() as stack:
            if budget is None:
                guided, stages = self._looked(plan, samples, statistics_path)
            else:
                path = stack.enter_context(_temporary_file()) if statistics_path is None else statistics_path
                allotment = Allotment(budget, self._model, plan)
                guided, stages = self._looked(plan, samples, path)
                with closing(stages):
                    for weights, of in stages:
                        for weight in shown(weights, progress, "pricing"):
                            price(allotment, weight, of(weight), guided, threads)
                allotment.keep()
                chosen = self._chosen(allotment, plan, samples, path, threads)
                plan, came_to = chosen.plan, chosen.report
                more.update(chosen.columns)
                guided, of = file.reading(path, plan.weights)
                stages = (stage for stage in [(plan.weights, of)])
            with closing(stages):
                for weights, of in stages:
                    for weight in shown(weights, progress, "fitting"):
                        made[weight.name], figures = fitted(weight, of(weight), guided, threads)
                        more[weight.name] = {**more.get(weight.name, {}), **figures}
        return self._put(plan, [made[weight.name] for weight in plan.weights], inplace, more, came_to)

    def _samples(
        self, dataloader: Any, loss_fn: LossFunction | None, forward_fn: ForwardFunction | None, progress: bool
    ) -> Samples:
        return Samples(dataloader, self._config.calibration_nsamples, loss_fn, forward_fn, progress)

    def _chosen(
        self, allotment: Allotment, plan: Plan, samples: Samples | None, path: str | os.PathLike[str], threads: int
    ) -> Chosen:
        """The forms that a budget comes to: by what they do to the outputs of the model, where there are samples to see it."""
        if samples is None:
            return allotment.chosen()

        def make(weights: list[Weight]) -> Iterator[_native.Palette]:
            guided, of = file.reading(path, weights)
            for weight in weights:
                yield fitted(quick(weight), of(weight), guided, threads)[0][0]

        def starts(weights: list[Weight]) -> Iterator[tuple[float, _native.Palette]]:
            guided, of = file.reading(path, weights)
            for weight in weights:
                yield start(weight, of(weight), guided, threads)

        with calibrating(self._model):
            try:
                outputs = Outputs(self._model, samples)
            except ValueError as error:
                _logger.warning("%s; bits are chosen by the errors of layers", error)
                return allotment.chosen()
            return calibrated(allotment, plan, outputs, make, starts)

    def _looked(
        self, plan: Plan, samples: Samples | None, path: str | os.PathLike[str] | None
    ) -> tuple[bool, Generator[Stage, None, None]]:
        """Whether statistics are guided, and the weights with theirs: from a file that is there, or from samples."""
        if path is not None and os.path.exists(path):
            guided, of = file.reading(path, plan.weights)
            return guided, (stage for stage in [(plan.weights, of)])
        if path is not None:
            safetensors.check_place(path)
        assert samples is not None  # compress has seen to it
        return samples.guided, self._stages(plan, samples, path)

    def _stages(
        self, plan: Plan, samples: Samples, path: str | os.PathLike[str] | None
    ) -> Generator[Stage, None, None]:
        """The weights with their statistics, which are written to a file as they are asked for."""
        config = self._config
        if is_sharded(self._model):
            raise ValueError(
                "the parameters of the model are sharded; statistics are computed block by block instead: "
                "give every process the whole model, and they share the samples"
            )
        memory = Memory(config.layers, config.max_cached_bytes)
        with ExitStack() as stack:
            write = path is not None and (not distributed() or dist.get_rank() == 0)
            writer = None
            if path is not None and write:
                writer = stack.enter_context(file.writing(path, plan.weights, samples.guided))
            collector = Collector(self._model, plan.weights, samples, config.guided_groups, memory)
            for weights, of in stack.enter_context(closing(collector.stages())):
                yield weights, of if writer is None else partial(writer.written, of)
        if path is not None and distributed():
            dist.barrier()


@contextmanager
def _temporary_file() -> Iterator[str]:
    """The path of a file that goes at the end.

    Raises:
        ValueError: there are several processes, which would each have another.
    """
    if distributed():
        raise ValueError("with a budget, give several processes a statistics_path: the name of a file that all of them can read")
    with tempfile.TemporaryDirectory(prefix="palettizer-") as folder:
        yield os.path.join(folder, "statistics.safetensors")
