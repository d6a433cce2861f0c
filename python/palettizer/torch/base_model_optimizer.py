"""What the optimizers of PyTorch models share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from palettizer.torch._report import Report
from palettizer.torch.optimization_config import OptimizationConfig


class BaseModelOptimizer(ABC):
    """A model and how it is to be compressed."""

    _supported_modules: ClassVar[tuple[type[torch.nn.Module], ...]] = ()
    _config_class: ClassVar[type[OptimizationConfig]] = OptimizationConfig

    def __init__(self, model: torch.nn.Module, config: OptimizationConfig | None = None) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, found {type(model).__name__}")
        if config is None:
            config = self._config_class()
        if not isinstance(config, self._config_class):
            raise TypeError(f"config must be a {self._config_class.__name__}, found {type(config).__name__}")
        self._model = model
        self._config = config

    @abstractmethod
    def report(self) -> Report:
        """What happened to each parameter."""

    @property
    def supported_modules(self) -> tuple[type[torch.nn.Module], ...]:
        """The classes of modules whose weights are compressed; subclasses count."""
        return self._supported_modules

    def _get_model_for_compression(self, inplace: bool) -> torch.nn.Module:
        return self._model if inplace else copy.deepcopy(self._model)


class BaseTrainingTimeModelOptimizer(BaseModelOptimizer):
    """An optimizer whose model is trained between `prepare` and `finalize`, with a `step` for each step of training."""

    @abstractmethod
    def prepare(self, inplace: bool = False) -> torch.nn.Module:
        """Makes the model ready to be trained."""

    @abstractmethod
    def step(self) -> None:
        """Counts a step of training."""

    @abstractmethod
    def finalize(self, model: torch.nn.Module | None = None, inplace: bool = False) -> torch.nn.Module:
        """Makes the trained model an ordinary one."""


class _Compressing(BaseModelOptimizer):
    _uncompressed_model: torch.nn.Module | None = None

    def compress(self, *args: Any, inplace: bool = False, **kwargs: Any) -> torch.nn.Module:
        """The model that a subclass is to compress: the model itself, or a copy."""
        self._uncompressed_model = self._get_model_for_compression(not inplace)
        self._model = self._get_model_for_compression(inplace)
        return self._model


class BasePostTrainingModelOptimizer(_Compressing):
    """An optimizer of a finished model that needs no data."""


class BaseDataCalibratedModelOptimizer(_Compressing):
    """An optimizer of a finished model that looks at data."""


__all__ = [
    "BaseDataCalibratedModelOptimizer",
    "BaseModelOptimizer",
    "BasePostTrainingModelOptimizer",
    "BaseTrainingTimeModelOptimizer",
]


def __dir__() -> list[str]:
    return __all__
