"""Who computes soft k-means of a weight: the native kernel on the CPU, kernels of Triton on NVIDIA GPUs, else torch.

All take the same settings and have the same methods. Tensors go to the native kernel as the bytes that they lie in.
"""

from __future__ import annotations

import ctypes
import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palettizer import _native
from palettizer.torch.palettization._soft.k_means import TorchSoftKMeans
from palettizer.torch.palettization._soft.settings import NATIVE_NAMES, SoftSettings, real_dtype

T = TypeVar("T")


class NativeSoftKMeans:
    """The native kernel with the methods of `TorchSoftKMeans`; the tensors are contiguous and on the CPU."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...], **arguments: Any) -> None:
        self._kernel = _native.SoftKMeans(NATIVE_NAMES[dtype], shape, **arguments)
        self._real = real_dtype(dtype)
        self.groups, self.clusters = self._kernel.groups, self._kernel.clusters
        self.cluster_dim, self.saved_len = self._kernel.cluster_dim, self._kernel.saved_len
        self.finds_temperature = self._kernel.finds_temperature
        self.floor, self.prune_threshold = self._kernel.floor, self._kernel.prune_threshold
        self._scaled = arguments["scale_scheme"] is not None

    def channel_scale(self, weight: Tensor) -> Tensor | None:
        if not self._scaled:
            return None
        out = torch.empty(weight.shape[0], dtype=self._real)
        _run(self._kernel.channel_scale, weight, out)
        return out

    def seed_centroids(self, weight: Tensor, scale: Tensor | None) -> Tensor:
        out = torch.empty(self.groups, self.clusters, self.cluster_dim, dtype=self._real)
        _run(self._kernel.seed_centroids, weight, scale, out)
        return out

    def temperatures(self, weight: Tensor, centroids: Tensor, scale: Tensor | None) -> Tensor:
        if not self.finds_temperature:
            return torch.empty(0)
        out = torch.empty(self.groups)
        _run(self._kernel.temperatures, weight, centroids, scale, out)
        return out

    def forward(
        self, weight: Tensor, centroids: Tensor, scale: Tensor | None, temperatures: Tensor, noise: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, following = torch.empty_like(weight), torch.empty_like(centroids)
        saved = torch.empty(self.saved_len, dtype=self._real)
        _run(self._kernel.forward, weight, centroids, scale, _some(temperatures), noise, out, following, saved)
        return out, following, saved

    def backward(
        self, weight: Tensor, scale: Tensor | None, temperatures: Tensor, noise: int, saved: Tensor, grad: Tensor
    ) -> Tensor:
        out = torch.empty_like(weight)
        _run(self._kernel.backward, weight, scale, _some(temperatures), noise, saved, grad, out)
        return out

    def assign(self, weight: Tensor, centroids: Tensor, scale: Tensor | None) -> Tensor:
        out = torch.empty_like(weight)
        _run(self._kernel.assign, weight, centroids, scale, out)
        return out

    def palette(self, weight: Tensor, centroids: Tensor, scale: Tensor | None) -> _native.Palette:
        """The hard weight as indices and tables; not of float64 weights."""
        return _run(self._kernel.palette, weight, centroids, scale)


def _some(tensor: Tensor) -> Tensor | None:
    """The tensor, if there is anything in it."""
    return tensor if tensor.numel() > 0 else None


def _run(method: Callable[..., T], *arguments: Tensor | int | None) -> T:
    """Calls a method of the kernel with the memory of the tensors, on as many threads as torch uses."""
    memory = (_memory(one) if isinstance(one, Tensor) else one for one in arguments)
    return method(*memory, threads=torch.get_num_threads())


def _memory(tensor: Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU, for as long as the tensor is held.

    `Tensor.numpy` would forbid FullyShardedDataParallel to free the storage, for good.
    """
    size = tensor.numel() * tensor.element_size()
    memory: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(tensor.data_ptr()))
    return memory


Kernel = NativeSoftKMeans | TorchSoftKMeans


@cache
def kernel(device: str, dtype: torch.dtype, shape: tuple[int, ...], settings: SoftSettings) -> Kernel:
    """What works on weights of a kind of device; the shape is that of the weight, before the permutation.

    Raises:
        ValueError: settings that such a weight cannot be palettized with.
    """
    make: type[Kernel] = NativeSoftKMeans if device == "cpu" else TorchSoftKMeans
    if device == "cuda" and _has_triton():
        from palettizer.torch.palettization._soft.triton_k_means import TritonSoftKMeans

        if TritonSoftKMeans.takes(dtype, shape, settings) and _works(settings.nbits, settings.cluster_dim):
            make = TritonSoftKMeans
    return make(dtype, settings.permuted(shape), **settings.arguments())


@cache
def _has_triton() -> bool:
    """Whether there is Triton, and a GPU for its kernels: one of NVIDIA, from Ampere on."""
    if torch.version.cuda is None or not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability() >= (8, 0)


@cache
def _works(nbits: int, cluster_dim: int) -> bool:
    """Whether what Triton makes for tables of a size gives what torch operations do."""
    from palettizer.torch.palettization._soft import triton_k_means

    try:
        triton_k_means.try_out(nbits, cluster_dim)
    except Exception as error:  # of a compiler, a driver, a version
        warnings.warn(f"Triton does not work here, and training with palettes is slower: {error}", stacklevel=2)
        return False
    return True


def arranged(weight: Tensor, settings: SoftSettings) -> Tensor:
    """The weight in the order of axes that the kernels want; itself if that is how it lies in memory."""
    return weight.detach().permute(settings.permutation or tuple(range(weight.dim()))).contiguous()
