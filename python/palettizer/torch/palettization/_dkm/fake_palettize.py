"""The module that stands between a weight and its layer while a model is trained: it makes the palettized weight.

Its buffers are all the state that there is, so that `state_dict` takes training up where it was, in the middle of an
accumulated gradient too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import _with_args

from palettizer import _native
from palettizer.torch.palettization._dkm.config import ModuleDKMPalettizerConfig
from palettizer.torch.palettization._dkm.kernel_settings import config_of
from palettizer.torch.palettization._dkm.peer_attributes import PeerAttributes
from palettizer.torch.palettization._plan.tensors import to_native
from palettizer.torch.palettization._soft.kernels import NativeSoftKMeans, arranged, kernel
from palettizer.torch.palettization._soft.settings import SoftSettings, real_dtype


class FakePalettize(PeerAttributes, nn.Module):
    """Maps a weight to a palettized one of the same shape and dtype: softly in training, to the nearest centroid else.

    The first enabled forward seeds the centroids. Each training forward moves them; repeated for the same weight, it
    gives the same result, so gradients may be accumulated, modules shared and activations checkpointed. `DKMPalettizer`
    puts one beside every weight, as `weight_fake_quant`; it is of use alone in layers of one's own.

    Args:
        shape: of the weight.
        settings: how it is palettized.
        milestone: calls of `step` before the one that enables it; until then weights pass as they are. 0: from the
        start.
        dtype: of the weight.
        device: of the weight.
        name: the qualified name of the weight, which reports know it by.
        config: where the settings come from, by coremltools' names.

    The attributes are those that coremltools' class has: `n_clusters`, `cluster_dim`, `palett_tau` and so on. They say
    how the weight is palettized; those that nothing depends on have the value that was configured.

    Buffers: `centroids` (groups, 2^n_bits, cluster_dim), NaN until seeded, from which the next step starts; `start`,
    from which the last one did, and `seen`, a sum of the bits of its weight; with a per-channel scale, `scale`, one
    number for each output channel; where the temperature is found, `temperature`, the bits of a number for each group, 0
    until it is; `fake_palett_enabled` and `step_count`.

    Raises:
        ValueError: settings that such a weight cannot be palettized with.

    >>> fake = FakePalettize((8, 8), SoftSettings(nbits=2))
    >>> weight = torch.randn(8, 8, requires_grad=True)
    >>> fake(weight).square().sum().backward()
    >>> weight.grad.shape
    torch.Size([8, 8])
    >>> len(fake.eval()(weight).unique())
    4
    """

    enabled = False
    """Whether weights are palettized. It is what the buffer says, without a look at its device."""
    start: Tensor
    seen: Tensor
    fake_palett_enabled: Tensor
    step_count: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        settings: SoftSettings,
        milestone: int = 0,
        dtype: torch.dtype = torch.float32,
        device: Any = None,
        name: str = "",
        config: ModuleDKMPalettizerConfig | None = None,
    ) -> None:
        super().__init__()
        _operators()
        self.config = config_of(settings) if config is None else config
        self.name = name
        self.settings = settings
        self.milestone = milestone
        self._text = settings.text()
        made, real = kernel(torch.device(device or "cpu").type, dtype, tuple(shape), settings), real_dtype(dtype)
        empty = torch.full((made.groups, made.clusters, made.cluster_dim), torch.nan, dtype=real, device=device)
        self.register_buffer("centroids", empty)
        self.register_buffer("start", empty.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=device))
        found = torch.zeros(made.groups, dtype=torch.int32, device=device) if made.finds_temperature else None
        self.register_buffer("temperature", found)
        self._shape = tuple(shape)
        self._rows = rows = settings.permuted(shape)[0]
        self._numel = math.prod(shape)
        scaled = settings.scale_scheme is not None
        scale = torch.full((rows,), torch.nan, dtype=real, device=device) if scaled else None
        self.register_buffer("scale", scale)
        self.register_buffer("fake_palett_enabled", torch.zeros(1, dtype=torch.uint8, device=device))
        self.register_buffer("step_count", torch.zeros((), dtype=torch.int64, device=device))
        self._steps = 0
        self.enable_fake_palett(milestone == 0)
        # The fused forward of torch's TransformerEncoderLayer reads weights past their modules; hooks keep it away.
        self.register_forward_pre_hook(_nothing)

    @classmethod
    def with_args(cls, **settings: Any) -> Any:
        """Settings for the class, as `torch.ao.quantization.QConfig` takes them."""
        return _with_args(cls, **settings)  # type: ignore[no-untyped-call]

    def reset_parameters(self) -> None:
        """There are none to reset; FullyShardedDataParallel asks of each module that has buffers."""

    def enable_fake_palett(self, enabled: bool = True) -> None:
        """Begins to palettize weights, or lets them pass as they are."""
        self.enabled = enabled
        self.fake_palett_enabled.fill_(int(enabled))

    def disable_fake_palett(self) -> None:
        """Lets weights pass as they are."""
        self.enable_fake_palett(False)

    def step(self) -> None:
        """Counts a step, and enables palettizing with the one after `milestone` others."""
        if self._steps == self.milestone:
            self.enable_fake_palett()
        self._steps += 1
        self.step_count.fill_(self._steps)

    def keep_zero(self) -> None:
        """From now on an entry of each table stays at zero, and what is exactly zero gets it: for pruned weights.

        Centroids that were found before are found anew.
        """
        if self.settings.enforce_zero and self.settings.prune_threshold == 0:
            return
        self.settings = replace(self.settings, enforce_zero=True, prune_threshold=0.0)
        self._text = self.settings.text()
        with torch.no_grad():
            self.centroids.fill_(torch.nan)
            if self.temperature is not None:
                self.temperature.zero_()

    def forward(self, weight: Tensor) -> Tensor:
        """The palettized weight, contiguous; the gradient passes in training.

        Raises:
            ValueError: NaN or infinite values where the centroids are to be found.
        """
        if torch.compiler.is_compiling():
            return self._palettized(weight)
        try:
            return self._palettized(weight)
        except _native.Refusal as refusal:
            raise ValueError(
                f"{self.name or 'the weight'}: {refusal}. If training has diverged, "
                "go back to an earlier state, and lower the learning rate or clip the gradient"
            ) from refusal

    def _palettized(self, weight: Tensor) -> Tensor:
        ops = _operators()
        scale = weight.new_empty(0) if self.scale is None else self.scale
        if not self.enabled:
            if self.scale is not None:
                self._keep(scale=ops.channel_scale(weight.detach(), scale, self._text))
            return weight
        if not self.training:
            hard: Tensor
            hard, centroids, scale = ops.hard_weight(weight.detach(), self.centroids, scale, self._text)
            self._keep(centroids=centroids, scale=scale)
            return hard
        # The seed is drawn here, by torch, so that its generator's state decides, as it does for dropout.
        noise = torch.randint(2**62, ()) if self.settings.mode == "gsm" else torch.zeros((), dtype=torch.int64)
        made: Tensor
        temperature = self.seen.new_empty(0, dtype=torch.int32) if self.temperature is None else self.temperature
        made, following, start, scale, temperature, seen, _ = ops.soft_weight(
            weight, self.centroids, self.start, scale, temperature, self.seen, noise, self._text
        )
        self._keep(centroids=following, start=start, scale=scale, temperature=temperature, seen=seen)
        return made

    def _keep(self, **values: Tensor) -> None:
        with torch.no_grad():
            for name, value in values.items():
                buffer = self._buffers[name]
                if buffer is not None:
                    buffer.copy_(value)

    def palettize(self, weight: Tensor) -> Tensor:
        """The weight as evaluation sees it."""
        with torch.no_grad():
            scale = weight.new_empty(0) if self.scale is None else self.scale
            hard: Tensor = _operators().hard_weight(weight.detach(), self.centroids, scale, self._text)[0]
        return hard

    def palette(self, weight: Tensor) -> _native.Palette:
        """The palette of the weight as evaluation sees it, its axes in the order that the settings permute them to.

        A float64 weight is rounded to float32. The weight may be on any device; nothing changes.
        """
        values = arranged(to_native(weight), self.settings)
        made = kernel("cpu", values.dtype, tuple(weight.shape), self.settings)
        assert isinstance(made, NativeSoftKMeans)
        real = real_dtype(values.dtype)
        scale = None if self.scale is None else self.scale.to("cpu", real)
        if scale is not None and bool(scale.isnan().any()):
            scale = made.channel_scale(values)
        centroids = self.centroids.to("cpu", real).contiguous()
        if bool(centroids.isnan().any()):
            centroids = made.seed_centroids(values, scale)
        return made.palette(values, centroids, scale)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        key = f"{prefix}temperature"
        if self.temperature is None:
            state_dict.pop(key, None)  # a number that is configured counts
        elif f"{prefix}centroids" in state_dict:
            state_dict.setdefault(key, torch.zeros_like(self.temperature))  # of before it was kept; to be found yet
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call,unused-ignore]
        self.enabled, self._steps = bool(self.fake_palett_enabled[0]), int(self.step_count)

    def extra_repr(self) -> str:
        """What is printed of it."""
        parts = [f"n_bits={self.settings.nbits}", f"cluster_dim={self.settings.cluster_dim}"]
        if self.settings.group_size is not None:
            parts.append(f"group_size={self.settings.group_size}")
        if self.milestone > 0:
            parts.append(f"milestone={self.milestone}")
        return ", ".join([*parts, f"mode={self.settings.mode}", f"enabled={self.enabled}"])


def _operators() -> Any:
    """The operators, which only newer versions of torch can register; without them, the rest of the package works."""
    from palettizer.torch.palettization._soft import operators

    return operators


def _nothing(module: nn.Module, args: Any) -> None:
    """A hook that does nothing."""
