"""Both sides by the same words: ours, and the peer (coremltools 9.0)."""

import copy

import coremltools.optimize.torch.palettization as peer
import palettizer.torch.palettization as ours
import torch
from torch import nn
from torch_support import layers, palettes

__all__ = ["ours", "peer", "judged", "post_training", "sensitive"]


def post_training(side, model, *, workers=1, inplace=False, **options):
    """The model after PostTrainingPalettizer with one global config."""
    config = side.PostTrainingPalettizerConfig(global_config=side.ModulePostTrainingPalettizerConfig(**options))
    return side.PostTrainingPalettizer(model, config).compress(num_kmeans_workers=workers, inplace=inplace)


def sensitive(side, model, path, **options):
    """The model after SKMPalettizer with one global config and given sensitivities."""
    config = side.SKMPalettizerConfig(global_config=side.ModuleSKMPalettizerConfig(**options))
    return side.SKMPalettizer(model, config).compress(sensitivity_path=str(path))


def judged(setting, tensor, sensitivity=None, folder=None, **more):
    """What the peer makes of one weight: dense values, in the weight's own shape and dtype.

    The weight is put into an equal Conv2d. The peer cannot read bf16; it is given the same values in fp32, and its
    result is rounded to bf16, as it would be. It cannot make more centroids than there are vectors either; then the
    vectors are the centroids.
    """
    if setting.vector > 1 and tensor.numel() // palettes.tables(setting, tensor.shape) <= 2**setting.n_bits * setting.vector:
        return _as_integers(setting, tensor.detach())
    torch.manual_seed(0)  # for the peer's random starts
    values = layers.as_conv2d(setting.kind, tensor.detach())
    values = values.float() if values.dtype == torch.bfloat16 else values.clone()
    holder = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    holder[0].weight = nn.Parameter(values)
    if sensitivity is None:
        done = post_training(peer, holder, **setting.options, **more)
    else:
        path = folder / "judged.pt"
        torch.save({"0.weight": layers.as_conv2d(setting.kind, sensitivity)}, path)
        done = sensitive(peer, holder, path, **setting.options)
    return layers.from_conv2d(setting.kind, done[0].weight.detach(), tensor.shape).to(tensor.dtype)


def _as_integers(setting, tensor):
    """What is left of values that are all in the table, when the table is of integers with one scale for each group."""
    if setting.lut_dtype is None:
        return tensor
    dim = layers.KINDS[setting.kind].dim(setting.channel_axis)
    groups = tensor.float().unflatten(dim, (-1, setting.group_size or tensor.shape[dim]))
    others = [d for d in range(groups.dim()) if d != dim]
    scale = groups.abs().amax(others, keepdim=True) / 127
    return ((groups / scale).round() * scale).flatten(dim, dim + 1).to(tensor.dtype)


def state(model):
    """A deep copy of a model's state, to compare bytes with later."""
    return copy.deepcopy(model.state_dict())
