"""Post-training, sensitive, layer-wise and differentiable palettization of PyTorch models.

The names, defaults and errors are those of `coremltools.optimize.torch.palettization`, which has nothing layer-wise.

>>> import torch
>>> from palettizer.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig
>>> config = PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": 2}})
>>> palettizer = PostTrainingPalettizer(torch.nn.Linear(64, 16), config)
>>> model = palettizer.compress(progress=False)
>>> sorted(model.state_dict())[:2]
['_COREML_/metadata_version', '_COREML_/weight/compression_type']
"""

from palettizer._budget import Budget
from palettizer.torch.palettization._dkm.config import DKMPalettizerConfig, ModuleDKMPalettizerConfig
from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize
from palettizer.torch.palettization._io.store import load_safetensors, save_safetensors
from palettizer.torch.palettization.differentiable_k_means import DKMPalettizer
from palettizer.torch.palettization.layerwise_palettization import (
    LayerwisePalettizer,
    LayerwisePalettizerConfig,
    ModuleLayerwisePalettizerConfig,
)
from palettizer.torch.palettization.post_training_palettization import (
    ModulePostTrainingPalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
)
from palettizer.torch.palettization.sensitive_k_means import (
    ModuleSKMPalettizerConfig,
    SKMPalettizer,
    SKMPalettizerConfig,
)
from palettizer.torch.palettization.table_tuning import tune_tables

__all__ = [
    "Budget",
    "DKMPalettizer",
    "DKMPalettizerConfig",
    "FakePalettize",
    "LayerwisePalettizer",
    "LayerwisePalettizerConfig",
    "ModuleDKMPalettizerConfig",
    "ModuleLayerwisePalettizerConfig",
    "ModulePostTrainingPalettizerConfig",
    "ModuleSKMPalettizerConfig",
    "PostTrainingPalettizer",
    "PostTrainingPalettizerConfig",
    "SKMPalettizer",
    "SKMPalettizerConfig",
    "load_safetensors",
    "save_safetensors",
    "tune_tables",
]
