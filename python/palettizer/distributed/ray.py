"""The weights of a checkpoint or a model, palettized by a Ray cluster.

The result is the same, byte for byte, as on one machine. What is done is kept on disk until all is, so a run that was
ended goes on where it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from palettizer.coreml import OptimizationConfig
    from palettizer.torch.palettization import PostTrainingPalettizerConfig, SKMPalettizerConfig

PathLike = str | os.PathLike[str]


def compress(
    checkpoint_or_module: PathLike | torch.nn.Module,
    config: OptimizationConfig | PostTrainingPalettizerConfig | SKMPalettizerConfig | None = None,
    out: PathLike | None = None,
    *,
    sensitivity_path: PathLike | None = None,
    sensitivity_default: str = "error",
    overwrite: bool = False,
    inplace: bool = False,
    part_bytes: int = 256 << 20,
    cpus_per_task: int = 1,
    address: str | None = None,
    progress: bool = True,
) -> Any:
    """Palettizes a checkpoint or a model on a Ray cluster.

    If Ray runs in this process already, it is used. Else a cluster is joined at `address`, or one is started on this
    machine, and left at the end.

    Args:
        checkpoint_or_module: a safetensors file, a folder of shards with their index, or a torch.nn.Module. All machines
            must be able to read a checkpoint and to write to the folder of `out`; a module needs no common disk.
        config: for a checkpoint a `palettizer.coreml.OptimizationConfig`, whose op names are names of tensors, or patterns;
            for a module a `PostTrainingPalettizerConfig` or an `SKMPalettizerConfig`; without one, 4 bits for every weight.
        out: where the palettized checkpoint goes; needed for one. A module is stored there too if it is given, as
            save_safetensors does it.
        sensitivity_path: a file of `SKMPalettizer.compute_sensitivity`.
        sensitivity_default: for a checkpoint, what becomes of a weight that the file lacks: "error" or "ones".
        overwrite: replace what is at `out`.
        inplace: change the module itself rather than a copy.
        part_bytes: weights of a checkpoint are given out in parts of this many bytes, and a part that is done need not
            be done again. Parts are kept in OUT.parts until all are; those of other weights or settings are not used.
        cpus_per_task: CPUs, and threads, of one task.
        address: of a Ray cluster, as `ray.init` takes it.
        progress: show a progress bar, if tqdm is installed.

    Returns:
        For a checkpoint the report, as `palettizer.coreml` has it; for a module the palettized module.

    Raises:
        ImportError: the package ray is not installed.
        FileExistsError: there is something at `out`, and overwrite is False.
        TypeError: arguments that do not go together.
        ValueError: as on one machine.

    >>> import tempfile, torch
    >>> from palettizer.torch import load_safetensors
    >>> model, again = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
    >>> out = os.path.join(tempfile.mkdtemp(), "small.safetensors")
    >>> small = compress(model, out=out, progress=False)
    >>> load_safetensors(again, out)
    >>> len(again.weight.unique()), torch.equal(again.weight, small.weight)
    (16, True)
    """
    target = None if out is None else Path(out).expanduser()
    if target is not None and target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")
    sensitivity = None if sensitivity_path is None else os.path.abspath(os.path.expanduser(sensitivity_path))
    if target is not None and sensitivity is not None and target.exists() and os.path.samefile(target, sensitivity):
        raise ValueError(f"out is the file of the sensitivities, {target}; choose another")
    cpus = max(1, int(cpus_per_task))
    if isinstance(checkpoint_or_module, (str, os.PathLike)):
        from palettizer.distributed._checkpoint import compress_checkpoint

        about = {"sensitivity": sensitivity, "sensitivity_default": sensitivity_default}
        source = Path(checkpoint_or_module).expanduser()
        return compress_checkpoint(source, config, about, target, overwrite, part_bytes, cpus, address, progress)
    from palettizer.distributed._module import compress_module

    return compress_module(checkpoint_or_module, config, target, sensitivity, inplace, cpus, address, progress)
