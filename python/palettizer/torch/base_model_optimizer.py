"""What the optimizers of PyTorch models share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Optional, Tuple, Type

import torch

from palettizer.torch._report import Report
from palettizer.torch.optimization_config import OptimizationConfig


class BaseModelOptimizer(ABC):
    """A model and how it is to be compressed."""

    _supported_modules: ClassVar[Tuple[Type[torch.nn.Module], ...]] = ()
    _config_class: ClassVar[Type[OptimizationConfig]] = OptimizationConfig

    def __init__(self, model: torch.nn.Module, config: Optional[OptimizationConfig] = None) -> None:
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
    def supported_modules(self) -> Tuple[Type[torch.nn.Module], ...]:
        """The classes of modules whose weights are compressed; subclasses count."""
        return self._supported_modules


class BaseTrainingTimeModelOptimizer(BaseModelOptimizer):
    """An optimizer whose model is trained between `prepare` and `finalize`, with a `step` for each step of training."""

    @abstractmethod
    def prepare(self, inplace: bool = False) -> torch.nn.Module:
        """Makes the model ready to be trained."""

    @abstractmethod
    def step(self) -> None:
        """Counts a step of training."""

    @abstractmethod
    def finalize(self, model: Optional[torch.nn.Module] = None, inplace: bool = False) -> torch.nn.Module:
        """Makes the trained model an ordinary one."""
