"""Palettization of Core AI programs (`.aimodel`), which macOS 27 and iOS 27 run: the names of `palettizer.coreml`.

It needs Apple's wheel `coreai-core` (`pip install 'palettizer[coreai]'`), which reads, writes and runs such programs on Macs
with Apple Silicon and on Linux.
"""

from palettizer.coreai._convert import convert
from palettizer.coreai._opt_config import module_config, program_config
from palettizer.coreai._program import Program, decompress_weights, get_weights_metadata, load, palettize_weights
from palettizer.coreml import Budget, OpPalettizerConfig, OptimizationConfig, Report

__all__ = [
    "Budget",
    "OpPalettizerConfig",
    "OptimizationConfig",
    "Program",
    "Report",
    "convert",
    "decompress_weights",
    "get_weights_metadata",
    "load",
    "module_config",
    "palettize_weights",
    "program_config",
]
