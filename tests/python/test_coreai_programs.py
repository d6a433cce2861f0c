"""Whole Core AI programs: which constants are weights and what they are called, options of the pipeline, and what the wheel makes of them."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from coreai_support import Cached, Many, Transformer, program, run
from coreai_torch import TorchConverter
from safetensors.numpy import save_file
from torch import nn
from torch_support import nets

import palettizer.coreai as core_ai
from palettizer.coreai import Budget, OpPalettizerConfig, OptimizationConfig
from palettizer.coreai._wheel import AIProgram, ir, mlir

TOKENS = (torch.arange(8)[None] * 7 % 64,)


def everything(bits=4, **more):
    return OptimizationConfig(global_config=OpPalettizerConfig(nbits=bits, weight_threshold=0, **more))


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("transformer") / "m.aimodel"
    program(Transformer(), *TOKENS, mode=TorchConverter.Mode.DEBUG).save_asset(path)
    return path


def names(given, threshold=0):
    return list(core_ai.get_weights_metadata(given, threshold))


def test_weights_are_those_of_layers_and_no_tables_of_positions_or_masks(transformer):
    found = core_ai.get_weights_metadata(transformer, 0)
    blocks = [f"main.Transformer_1.Block_{block}.Linear_{4 * block - 4 + layer}.linear_0" for block in (1, 2) for layer in (1, 2, 3, 4)]
    assert list(found) == ["main.Transformer_1.Embedding_1.gather_0", *blocks] or set(blocks) < set(found), list(found)
    tied = next(iter(found.values()))
    assert {op.op_type for op in tied.child_ops} == {"gather", "linear"}
    assert len(found) == 9 and all(one.val.shape != (8, 32) for one in found.values())


def test_names_are_the_same_in_every_process_and_conversion(transformer):
    torch.manual_seed(3)
    again = program(Transformer(), *TOKENS, mode=TorchConverter.Mode.DEBUG)
    assert names(again) == names(transformer)


def test_a_program_that_does_not_know_its_modules_has_names_too(transformer):
    torch.manual_seed(3)
    plain = program(Transformer(), *TOKENS)
    assert names(plain) == ["main.gather_0"] + [f"main.linear_{number}" for number in range(1, 9)]
    config = OptimizationConfig(op_name_configs={"main.linear_3": OpPalettizerConfig(nbits=2, weight_threshold=0)})
    for given in (plain, transformer):  # the short names are good for both
        done = core_ai.palettize_weights(given, config, progress=False)
        assert [len(np.unique(one.val)) <= 4 for one in core_ai.get_weights_metadata(done, 0).values()].count(True) == 1


def test_types_and_names_choose(transformer, caplog):
    named = names(transformer)[3]
    config = OptimizationConfig(
        global_config=None,
        op_type_configs={"linear": OpPalettizerConfig(nbits=4, weight_threshold=0)},
        op_name_configs={named: None, "main.gather_0": OpPalettizerConfig(nbits=8, weight_threshold=0)},
    )
    report = core_ai.palettize_weights(transformer, config, progress=False).report
    assert [row["nbits"] for row in report.values()] == [8, 4, 4, 4, 4, 4, 4, 4] and named not in report
    core_ai.palettize_weights(transformer, OptimizationConfig(op_name_configs={"nowhere": None}), progress=False)
    assert "The configuration names 'nowhere', which fits no weight of the model" in caplog.text


def test_what_comes_in_comes_out_and_stays_as_it_was(transformer, tmp_path):
    path = tmp_path / "m.aimodel"
    opened = core_ai.load(transformer)
    assert isinstance(core_ai.palettize_weights(opened.program, everything(), progress=False), type(opened.program))
    small = core_ai.palettize_weights(opened, everything(), progress=False)
    assert isinstance(small, core_ai.Program) and small.report.bytes_after < small.report.bytes_before / 2
    opened.save(path)
    assert (path / "main.mlirb").read_bytes() == (transformer / "main.mlirb").read_bytes()
    assert isinstance(core_ai.decompress_weights(small), core_ai.Program)


def test_the_same_bytes_every_time(transformer, tmp_path):
    made = []
    for threads in (1, 4):
        core_ai.palettize_weights(transformer, everything(3), progress=False, threads=threads).save(tmp_path / f"{threads}.aimodel")
        made.append((tmp_path / f"{threads}.aimodel/main.mlirb").read_bytes())
    assert made[0] == made[1]


def test_a_palettized_weight_is_left(transformer):
    once = core_ai.palettize_weights(transformer, everything(), progress=False)
    twice = core_ai.palettize_weights(once, everything(2), progress=False)
    assert {row["reason"] for row in twice.report.values()} == {"already compressed; decompress_weights makes it dense"}
    with pytest.raises(ValueError, match="does not divide"):
        core_ai.palettize_weights(transformer, everything(granularity="per_grouped_channel", group_size=5), progress=False, strict=True)


def test_the_report_is_about_the_weights_of_the_file(transformer, tmp_path):
    before = core_ai.get_weights_metadata(transformer, 0)
    small = core_ai.palettize_weights(transformer, everything(3), progress=False)
    small.save(tmp_path / "m.aimodel")
    after = core_ai.get_weights_metadata(tmp_path / "m.aimodel", 0)
    assert list(before) == list(after) == list(small.report)
    for name, row in small.report.items():
        error = np.sum((before[name].val - after[name].val) ** 2.0)
        assert row["snr_db"] == pytest.approx(10 * np.log10(np.sum(before[name].val ** 2.0) / error), abs=1e-3)
        assert after[name].unique_values <= 8


def test_decompressed_weights_are_those_of_the_palettes(transformer, tmp_path):
    small = core_ai.palettize_weights(transformer, everything(4, granularity="per_grouped_channel", group_size=8), progress=False)
    back = core_ai.decompress_weights(small)
    back.save(tmp_path / "back.aimodel")
    listed = core_ai.load(tmp_path / "back.aimodel")._opened.listed(0)
    assert all(not weight["ops"] for weight in listed)
    old, new = core_ai.get_weights_metadata(small, 0), core_ai.get_weights_metadata(tmp_path / "back.aimodel", 0)
    assert all(np.array_equal(old[name].val, new[name].val) for name in old)


def test_sensitivities(transformer, tmp_path):
    found = core_ai.get_weights_metadata(transformer, 0)
    values = {name: np.random.default_rng(0).random(one.val.shape, np.float32) ** 8 for name, one in found.items()}
    save_file(values, tmp_path / "s.safetensors")
    plain = core_ai.palettize_weights(transformer, everything(2), progress=False)
    weighted = core_ai.palettize_weights(transformer, everything(2), progress=False, sensitivity=tmp_path / "s.safetensors")
    for name, one in found.items():
        harm = [np.sum(values[name] * (core_ai.get_weights_metadata(small, 0)[name].val - one.val) ** 2.0) for small in (weighted, plain)]
        assert harm[0] < harm[1]


@pytest.mark.parametrize("size", [28_500, 34_000, 42_000])
def test_a_budget_is_kept_and_its_promise_is_true(transformer, tmp_path, size):
    budget = Budget(target_size=size, choices={"nbits": [1, 2, 3, 4, 6, 8]})
    small = core_ai.palettize_weights(transformer, everything(), budget=budget, progress=False)
    small.save(tmp_path / "m.aimodel")
    found = (tmp_path / "m.aimodel/main.mlirb").stat().st_size
    assert found <= size and found <= small.report.bytes_after <= found + 256 * len(small.report) + 64
    curves = tmp_path / "curves.json"
    kept = Budget(target_size=size, choices={"nbits": [1, 2, 3, 4, 6, 8]}, curves=curves)
    for _ in range(2):
        again = core_ai.palettize_weights(transformer, everything(), budget=kept, progress=False)
        assert [row["nbits"] for row in again.report.values()] == [row["nbits"] for row in small.report.values()]
    assert curves.is_file()


def test_a_budget_that_cannot_be_met(transformer):
    with pytest.raises(ValueError, match="the least that can be had is"):
        core_ai.palettize_weights(transformer, None, budget=Budget(target_size=500), progress=False)


class Dynamic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, x):
        return self.layers(x)


def test_two_entry_points_with_a_weight_in_common(tmp_path):
    first = Dynamic()
    second = copy.deepcopy(first)
    x = torch.randn(4, 16)
    made = program(first, x, entry="one", more=[(second, (x,), ("x",), "two")])
    found = names(made)
    assert {name.partition(".")[0] for name in found} == {"one", "two"} and len(found) == 4
    check(made, tmp_path, [({"x": x}, "one"), ({"x": x}, "two")])


def test_a_dynamic_batch(tmp_path):
    batch = torch.export.Dim("batch", min=1, max=64)
    made = program(Dynamic(), torch.randn(4, 16), dynamic={"x": {0: batch}})
    check(made, tmp_path, [({"x": torch.randn(count, 16)}, "main") for count in (1, 7)])


def check(made, tmp_path, tasks, config=None):
    """Palettized, it runs as decompressed."""
    small = core_ai.palettize_weights(made, config or everything(4), progress=False)
    assert any(weight["ops"] for weight in core_ai.Program(core_ai._program.Opened(small))._opened.listed(0))
    paths = [tmp_path / "small.aimodel", tmp_path / "back.aimodel"]
    small.save_asset(paths[0])
    core_ai.decompress_weights(paths[0]).save(paths[1])
    found = run(tmp_path, *((path, *task) for path in paths for task in tasks))
    for one, other in zip(found, found[len(tasks):]):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    return found


def test_state(tmp_path):
    torch.manual_seed(6)
    at = torch.tensor([2])
    made = program(Cached(), torch.randn(1, 1, 32), at, names=("x", "at"))
    given = {"x": torch.randn(1, 1, 32), "at": at, "b_keys": torch.randn(1, 8, 32), "b_values": torch.randn(1, 8, 32)}
    found = check(made, tmp_path, [(given, "main")])
    assert set(found[0]) == {"y", "b_keys", "b_values"}
    assert (found[0]["b_keys"] != given["b_keys"].numpy()).any(-1).tolist() == [[at == 2 for at in range(8)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_transformers(tmp_path, dtype):
    torch.manual_seed(4)
    check(program(Transformer().to(dtype), *TOKENS), tmp_path, [({"x": TOKENS[0]}, "main")])


def test_a_chain_through_transposes_and_shapes(tmp_path):
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Parameter(torch.randn(24, 16)), nn.Parameter(torch.randn(2, 16, 12))

        def forward(self, x):
            return (x @ self.first.T.reshape(16, 4, 6).reshape(16, 24)).unsqueeze(0).expand(2, -1, -1) @ self.second.repeat(1, 2, 1)[:, :24]

    found = core_ai.load(saved(program(Chain(), torch.randn(5, 16)), tmp_path))._opened.weights
    assert [weight.axis for weight in found if weight.uses[0].kind != "matmul"] in ([], [0])


def saved(made, tmp_path):
    made.save_asset(tmp_path / "chain.aimodel")
    return tmp_path / "chain.aimodel"


def test_resnet18(tmp_path):
    import torchvision

    torch.manual_seed(5)
    made = program(torchvision.models.resnet18(), torch.randn(1, 3, 64, 64))
    small = core_ai.palettize_weights(made, everything(4), progress=False)
    listed = core_ai.Program(core_ai._program.Opened(small))._opened.listed(0)
    assert len(listed) == 21 and all(weight["ops"] == ["lut_to_dense"] for weight in listed)
    assert {use[1] for weight in listed for use in weight["users"]} == {"conv", "linear"}
    small.save_asset(tmp_path / "small.aimodel")
    assert (tmp_path / "small.aimodel/main.mlirb").stat().st_size < 6_100_000


def test_minilm_with_its_weights(model_folder, tmp_path):
    network = nets.minilm(model_folder)
    tokens = torch.tensor([[101, 7592, 2088, 102]])
    made = program(network, tokens)
    found = core_ai.get_weights_metadata(made, 10_000)
    assert len(found) >= 37
    small = core_ai.palettize_weights(made, everything(6, granularity="per_grouped_channel", group_size=16), progress=False)
    small.save_asset(tmp_path / "small.aimodel")
    before = network(tokens)
    before = (before if isinstance(before, torch.Tensor) else before[0]).detach().numpy()
    after = run(tmp_path, (tmp_path / "small.aimodel", {"x": tokens}))[0]["y"]
    cosine = np.sum(before * after) / np.linalg.norm(before) / np.linalg.norm(after)
    assert cosine > 0.98


def test_metadata_prints_as_of_core_ml(transformer):
    small = core_ai.palettize_weights(transformer, everything(2), progress=False)
    found = core_ai.get_weights_metadata(small, 0)
    assert all(1 < one.unique_values <= 4 and one.sparsity < 0.5 for one in found.values())
    assert json.dumps(list(found))
    assert len(core_ai.get_weights_metadata(small, 2049)) < len(found)


def test_the_preset_for_language_models():
    """Embedding and head at 8 bits, tied or not; the rest as the configuration says."""
    for tied in (True, False):
        made = program(Transformer(tied=tied), *TOKENS)
        config = everything(2)
        config.preset = "llm"
        found = core_ai.get_weights_metadata(core_ai.palettize_weights(made, config, progress=False), 0)
        wide = [name for name, one in found.items() if one.unique_values > 4]
        assert len(wide) == (1 if tied else 2) and all(found[name].val.shape == (64, 32) for name in wide), wide
        kinds = {op.op_type for name in wide for op in found[name].child_ops}
        assert kinds == {"gather", "linear"}


def test_many_weights_of_one_program_are_told_apart():
    made = program(Many(3), torch.randn(2, 24))
    config = OptimizationConfig(op_name_configs={
        f"main.linear_{at}": OpPalettizerConfig(nbits=bits, weight_threshold=0) for at, bits in enumerate((1, 4, 2))})
    small = core_ai.palettize_weights(made, config, progress=False)
    assert [one.unique_values for one in core_ai.get_weights_metadata(small, 0).values()] == [2, 16, 4]


PRODUCT = """
  coreai.graph private noinline @product_qwertzui(%arg0: tensor<3x24xf32>, %arg1: tensor<16x24xf32>) -> tensor<3x16xf32> {
    %0 = coreai.constant dense<[1, 0]> : tensor<2xui32>
    %1 = coreai.transpose %arg1, %0 : (tensor<16x24xf32>, tensor<2xui32>) -> tensor<24x16xf32>
    %2 = coreai.decomposable.broadcasting_batch_matmul %arg0, %1 : (tensor<3x24xf32>, tensor<24x16xf32>) -> tensor<3x16xf32>
    coreai.output %2 : tensor<3x16xf32>
  }
"""
TRANSPOSED = r"%\d+ = coreai.transpose %(\d+), %\d+ : .*\n    (%\d+) = coreai.decomposable.broadcasting_batch_matmul %arg0, %\d+ : .*\n"


def test_weights_that_private_functions_take(tmp_path):
    """Two products of one function, which a converter calls with a weight each."""
    dense = program(Many(2), torch.randn(3, 24))
    kind = "(tensor<3x24xf32>, tensor<16x24xf32>) -> tensor<3x16xf32>"
    text, count = re.subn(TRANSPOSED, rf"\2 = coreai.invoke @product_qwertzui(%arg0, %\1) : {kind}\n", str(mlir(dense)))
    assert count == 2
    module = ir.Module.parse(text.replace("module {", "module {" + PRODUCT, 1), mlir(dense).context)
    made = AIProgram._from_mlir_module(module)
    found = core_ai.get_weights_metadata(made, 0)
    assert {name: [op.op_type for op in one.child_ops] for name, one in found.items()} == {
        "main.linear_0": ["linear"], "main.linear_1": ["linear"]}
    x = torch.randn(3, 24)
    config = OptimizationConfig(op_name_configs={"main.linear_1": OpPalettizerConfig(nbits=2, weight_threshold=0)})
    outputs = check(made, tmp_path, [({"x": x}, "main")], config)
    dense.save_asset(tmp_path / "dense.aimodel")
    before = run(tmp_path, (tmp_path / "dense.aimodel", {"x": x}))[0]["y"]
    assert np.array_equal(outputs[0]["y"][0], before[0]) and not np.array_equal(outputs[0]["y"][1], before[1])
