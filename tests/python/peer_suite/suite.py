"""Which tests of coremltools are the palettization suite, and which of them fail on purpose.

Out of the set are tests of what is private to coremltools: of its graph passes (`coreml/test_passes.py`), of its helpers
(`torch/palettization/test_palettization_utils.py`), and those that replace its private functions by mocks and look at how
they are called (`torch/palettization/test_sensitive_k_means.py`).
"""

_POST_TRAINING = "coreml/test_post_training_quantization.py"
_REPORTS = "torch/test_utils/test_report_utils.py"
_OVERVIEW = "api/test_optimize_api.py"
_SURFACE = "torch/test_api_surface.py::TestApiVisibilities"

# names of files, classes and tests, below coremltools/test/optimize
SUITES = {
    "coreml": (
        f"{_POST_TRAINING}::TestPalettizeWeights",
        f"{_POST_TRAINING}::TestJointCompressWeights::test_joint_palettize_quantize_weights",
        f"{_POST_TRAINING}::TestJointCompressWeights::test_joint_palettize_quantize_weights_invalid",
        f"{_POST_TRAINING}::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights",
        f"{_POST_TRAINING}::TestJointCompressWeights::test_joint_prune_palettize_weights",
        f"{_POST_TRAINING}::TestJointCompressWeights::test_lstm_state",
        f"{_POST_TRAINING}::TestDecompressWeights",
        f"{_POST_TRAINING}::TestConvertMixedCompression",
        f"{_POST_TRAINING}::TestErrorHandling",
        f"{_POST_TRAINING}::TestCoreMLWeightMetaData",
        f"{_OVERVIEW}::TestOptimizeCoremlAPIOverview::test_6_bit_palettization_example",
        f"{_OVERVIEW}::TestOptimizeCoremlAPIOverview::test_customize_ops_to_compress",
        f"{_OVERVIEW}::TestPostTrainingPalettization",
    ),
    "torch": (
        "torch/palettization/test_palettization_api.py",
        "torch/palettization/test_palettizer.py",
        "torch/palettization/test_post_training_palettization.py",
        f"{_REPORTS}::test_report_post_training_palettization",
        f"{_REPORTS}::test_report_skm_palettizer",
        "torch/test_base_optimizer.py",
        "torch/smoke_test.py",
        "torch/conversion/palettization/test_palettization_conversion.py",
        f"{_SURFACE}::test_base_model_optimizer_module",
        f"{_SURFACE}::test_optimization_config_module",
        f"{_SURFACE}::test_palettization_module",
        f"{_OVERVIEW}::TestTrainingTimePalettization",
    ),
}

_PALETTIZE = "torch/palettization/test_palettizer.py"
_DKM = "torch/palettization/test_palettization_api.py"
_FEW = "A weight with fewer elements than centroids is left alone by itself"
_LOGS = "Log lines are our own"
_ROWS = "Every parameter has a row in the report"

# test -> the row of docs/differences.md that says why it fails, by its title
DIFFERENCES: dict[str, dict[str, str]] = {
    "coreml": {
        f"{_POST_TRAINING}::TestErrorHandling::test_error_out_multifunction": "Several functions, classifiers, pipelines",
        f"{_POST_TRAINING}::TestPalettizeWeights::test_palettization_pcs[ComputeUnit.CPU_ONLY-backend0]": (
            "A per-channel scale stays beside one table"
        ),
    },
    "torch": {
        f"{_DKM}::test_prepare_palettizer_simple_model_cluster_dim_mil_check[cluster_dim_expected_std_outputs1]": _LOGS,
        f"{_DKM}::test_prepare_palettizer_simple_model_block_size_mil_check[block_size_expected_std_outputs0]": _LOGS,
        f"{_DKM}::test_finalize_without_forward": (
            "A weight that was never used in training is palettized by k-means at the end"
        ),
        f"{_PALETTIZE}::test_fake_palettize_insertion_weighted_modules[module4]": _FEW,
        f"{_PALETTIZE}::test_fake_palettize_insertion_multihead_attention[True-1-1]": _FEW,
        f"{_PALETTIZE}::test_fake_palettize_insertion_multihead_attention[False-1-1]": _FEW,
        **{f"{_REPORTS}::test_report_post_training_palettization[True-config{n}]": _ROWS for n in range(4)},
        **{f"{_REPORTS}::test_report_skm_palettizer[False-config{n}]": _ROWS for n in range(3)},
        f"{_SURFACE}::test_palettization_module": "More public names",
    },
}

# how many pass, at least: all others but one of each suite, which needs macOS
PASS = {"coreml": 164, "torch": 102}


def belongs(test: str, suite: str) -> bool:
    """Whether a test is one of a suite's, by its name below coremltools/test/optimize."""
    name = test.partition("[")[0]
    return any(name == prefix or name.startswith(f"{prefix}::") for prefix in SUITES[suite])
