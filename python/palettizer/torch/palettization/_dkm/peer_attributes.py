"""The attributes that coremltools' FakePalettize has, as scripts read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import MovingAveragePerChannelMinMaxObserver

from palettizer.torch.palettization._dkm.config import ModuleDKMPalettizerConfig
from palettizer.torch.palettization._soft.kernels import kernel
from palettizer.torch.palettization._soft.settings import SoftSettings

_CONFIGURED = frozenset(ModuleDKMPalettizerConfig().as_dict()) - {"milestone"}
"""What is asked of the config."""


class PeerAttributes:
    """What coremltools' class says of itself, by the settings, the config and the buffers of ours."""

    config: ModuleDKMPalettizerConfig
    settings: SoftSettings
    centroids: Tensor
    scale: Tensor | None
    temperature: Tensor | None
    autograd_graph = False
    proj_factor = None
    _shape: tuple[int, ...]
    _rows: int
    _numel: int

    def __getattr__(self, name: str) -> Any:
        if name in _CONFIGURED:
            return getattr(self.config, name)
        return super().__getattr__(name)  # type: ignore[misc]

    @property
    def n_clusters(self) -> int:
        """How many entries a table has."""
        return 1 << self.settings.nbits

    @property
    def cluster_permute(self) -> tuple[int, ...] | None:
        """The order of axes that the weight is brought to before it is cut into groups."""
        return self.settings.permutation

    @property
    def prune_threshold(self) -> float:
        """What the squared distance to an entry at zero is lowered by."""
        return kernel("cpu", torch.float32, self._shape, self.settings).prune_threshold

    @property
    def zero_threshold(self) -> float:
        """The least attention."""
        return kernel("cpu", torch.float32, self._shape, self.settings).floor

    @property
    def palett_tau(self) -> float | str | list[float]:
        """The temperature: one that is found is "auto" until then, and with several tables one for each."""
        if self.temperature is None or not bool(self.temperature.all()):
            return self.config.palett_tau
        found: list[float] = self.temperature.cpu().view(torch.float32).tolist()
        return found[0] if len(found) == 1 else found

    @property
    def enforce_zero(self) -> list[bool]:
        """Whether an entry stays at zero, for each group."""
        return [self.settings.enforce_zero] * len(self.centroids)

    @property
    def per_channel_scaling_factor(self) -> Tensor | None:
        """A number for each output channel, NaN until the first forward; None without a per-channel scale."""
        return self.scale

    @property
    def vector_ch_axis(self) -> int:
        """The axis that vectors lie along."""
        return self.config.channel_axis or 0

    @property
    def need_to_quantize(self) -> bool:
        """Whether the entries of the tables are less precise than the weights."""
        return self.settings.lut_dtype is not None

    @property
    def partitions(self) -> list[list[int]]:
        """The channels of each group."""
        size = self._rows // len(self.centroids)
        return [list(range(start, start + size)) for start in range(0, self._rows, size)]

    @property
    def partition_numel(self) -> Tensor:
        """The number of elements of each group."""
        groups = len(self.centroids)
        return torch.full((groups,), self._numel // groups)

    @property
    def labels(self) -> list[None]:
        """Nothing for each group: which weight has which entry is found anew when it is asked."""
        return [None] * len(self.centroids)

    @property
    def enable_partition(self) -> list[bool]:
        """Whether the entries of each group are trained."""
        groups = len(self.centroids)
        trained = min(groups, max(1, int(self.settings.enabled * groups)))
        return [True] * trained + [False] * (groups - trained)

    @property
    def activation_post_process(self) -> nn.Module:
        """An observer with the configured range.

        coremltools finds the scale of integer tables by it; here a table has the scale that its own entries need, and
        the observer sees nothing.
        """
        return _Observer(dtype=self.config.dtype, quant_min=self.config.quant_min, quant_max=self.config.quant_max)


class _Observer(MovingAveragePerChannelMinMaxObserver):
    def reset_parameters(self) -> None:
        """Forgets what was seen."""
        self.reset_min_max_vals()
