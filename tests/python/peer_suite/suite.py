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

# test -> the row of docs/differences.md that says why, by its title
DIFFERENCES: dict[str, dict[str, str]] = {
    "coreml": {
        f"{_POST_TRAINING}::TestErrorHandling::test_error_out_multifunction": "Several functions, classifiers, pipelines",
    },
    "torch": {},
}

# fail, and should not
OPEN: dict[str, list[str]] = {
    "coreml": [
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_weight_palettization_unique_case_2",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_channelwise_palettization_unique_skip_op[ComputeUnit.CPU_ONLY-backend0]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend0-kmeans-2-conv]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend1-kmeans-2-conv_transpose]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend2-kmeans-4-conv]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend3-kmeans-4-conv_transpose]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend4-unique-2-conv]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend5-unique-2-conv_transpose]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend6-unique-4-conv]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_vector_palettization_skip_conv[ComputeUnit.CPU_ONLY-backend7-unique-4-conv_transpose]",
        "coreml/test_post_training_quantization.py::TestPalettizeWeights::test_palettization_pcs[ComputeUnit.CPU_ONLY-backend0]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend0-3-0-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend2-3-1-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend4-3-2-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend6-4-0-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend8-4-1-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend10-4-2-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend12-8-0-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend14-8-1-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_weights[ComputeUnit.CPU_ONLY-backend16-8-2-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend0-3-0-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend2-3-1-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend4-3-2-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend6-4-0-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend8-4-1-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend10-4-2-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend12-8-0-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend14-8-1-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend16-8-2-True]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend0-3-0-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend1-3-0-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend2-3-1-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend3-3-1-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend4-3-2-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend5-3-2-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend6-4-0-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend7-4-0-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend8-4-1-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend9-4-1-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend10-4-2-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend11-4-2-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend12-8-0-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend13-8-0-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend14-8-1-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend15-8-1-0.8]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend16-8-2-0.2]",
        "coreml/test_post_training_quantization.py::TestJointCompressWeights::test_joint_prune_palettize_quantize_weights[ComputeUnit.CPU_ONLY-backend17-8-2-0.8]",
    ],
    "torch": [
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_weighted_modules[module0]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_weighted_modules[module1]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_weighted_modules[module2]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_weighted_modules[module3]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_weighted_modules[module4]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_weighted_modules[module5]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_multihead_attention[True-1-1]",
        "torch/palettization/test_palettizer.py::test_fake_palettize_insertion_multihead_attention[False-1-1]",
        "torch/test_api_surface.py::TestApiVisibilities::test_base_model_optimizer_module",
        "torch/test_api_surface.py::TestApiVisibilities::test_optimization_config_module",
        "torch/test_api_surface.py::TestApiVisibilities::test_palettization_module",
        "torch/test_utils/test_report_utils.py::test_report_post_training_palettization[True-config0]",
        "torch/test_utils/test_report_utils.py::test_report_post_training_palettization[True-config1]",
        "torch/test_utils/test_report_utils.py::test_report_post_training_palettization[True-config2]",
        "torch/test_utils/test_report_utils.py::test_report_post_training_palettization[True-config3]",
        "torch/test_utils/test_report_utils.py::test_report_skm_palettizer[False-config0]",
        "torch/test_utils/test_report_utils.py::test_report_skm_palettizer[False-config1]",
        "torch/test_utils/test_report_utils.py::test_report_skm_palettizer[False-config2]",
        "torch/smoke_test.py::TestSmokeTest::test_model_optimizations",
    ],
}


def belongs(test: str, suite: str) -> bool:
    """Whether a test is one of a suite's, by its name below coremltools/test/optimize."""
    name = test.partition("[")[0]
    return any(name == prefix or name.startswith(f"{prefix}::") for prefix in SUITES[suite])
