"""`--preset llm`: what it finds in programs, by names as converters give them and, where names say nothing, by use."""

import json

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from judge import weights
from zoo import convert

VOCABULARY, WIDTH, LENGTH = 256, 64, 96


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.up_proj = torch.nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.down_proj = torch.nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.norm = torch.nn.LayerNorm(WIDTH)

    def forward(self, x, cos, mask):
        y = self.norm(x)
        q, k = self.q_proj(y) * cos, self.k_proj(y) * cos
        scores = torch.softmax(q @ k.transpose(1, 2) / 8 + mask, dim=-1)
        x = x + scores @ y
        return x + self.down_proj(torch.relu(self.up_proj(self.norm(x))))


class Model(torch.nn.Module):
    """Two blocks, rotary tables that are looked up, a causal mask that is cut, and a head."""

    def __init__(self):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = torch.nn.ModuleList([Block(), Block()])
        self.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.register_buffer("cos_cached", torch.cos(torch.arange(LENGTH)[:, None] * torch.linspace(1, 0.01, WIDTH)))
        self.register_buffer("causal_mask", torch.full((LENGTH, LENGTH), -1e4).triu(1))

    def forward(self, tokens, positions):
        x = self.embed_tokens(tokens)
        cos = self.cos_cached[positions]
        mask = self.causal_mask[positions[0]][:, :8]
        for layer in self.layers:
            x = layer(x, cos, mask)
        return self.lm_head(x)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    torch.manual_seed(0)
    example = (torch.zeros(1, 8, dtype=torch.int64), torch.arange(8)[None])
    traced = torch.jit.trace(Model().eval(), example)
    inputs = [ct.TensorType(name=name, shape=(1, 8), dtype=np.int32) for name in ("tokens", "positions")]
    model = ct.convert(traced, inputs=inputs, minimum_deployment_target=ct.target.iOS18)
    path = tmp_path_factory.mktemp("llm") / "llm.mlpackage"
    model.save(str(path))
    return path


@pytest.fixture
def bits(palettizer, tmp_path):
    def run(path, *args):
        out, report = tmp_path / "out.mlpackage", tmp_path / "report.json"
        palettizer("compress", path, "-o", out, "--force", "--report", report, *args)
        rows = json.loads(report.read_text())["weights"]
        return {row["name"]: row["nbits"] for row in rows}, out
    return run


def test_a_converted_model(converted, bits):
    found, out = bits(converted, "--nbits", 4, "--group-size", 16, "--preset", "llm")
    embedding = [n for name, n in found.items() if "embed_tokens" in name]
    head = [n for name, n in found.items() if "lm_head" in name]
    projections = [n for name, n in found.items() if "_proj_" in name]
    assert embedding == [8] and head == [8]
    assert projections == [4] * 8
    rest = {name: n for name, n in found.items() if not any(part in name for part in ("embed", "head", "_proj_"))}
    assert set(rest.values()) <= {None}, rest
    assert len(weights(out)) >= 10  # coremltools loads and decompresses it

    # without the preset all are palettized alike; a rule goes before it
    plain, _ = bits(converted, "--nbits", 4)
    assert set(plain.values()) == {4}
    rules = ("--op-name", ".*lm_head.*=6", "--op-type", "gather=skip")
    ruled, _ = bits(converted, "--nbits", 4, "--preset", "llm", *rules)
    assert [n for name, n in ruled.items() if "lm_head" in name] == [6]
    assert [n for name, n in ruled.items() if "embed_tokens" in name] == [None]


def anonymous():
    """The same parts, whose names say nothing."""
    rng = np.random.default_rng(0)

    def const(number, *shape):
        return mb.const(val=rng.standard_normal(shape).astype(np.float32), name=f"const_{number}")

    specs = [mb.TensorSpec((1, 8), dtype=types.int32), mb.TensorSpec((8,), dtype=types.int32)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def program(tokens, positions):
        x = mb.gather(x=const(0, VOCABULARY, WIDTH), indices=tokens, axis=0, name="op_0")
        x = mb.add(x=x, y=mb.gather(x=const(1, LENGTH, WIDTH), indices=positions, axis=0), name="op_1")
        q = mb.linear(x=x, weight=const(2, WIDTH, WIDTH), name="op_2")
        cos = mb.gather(x=const(3, LENGTH, WIDTH), indices=positions, axis=0, name="op_3")
        q = mb.mul(x=q, y=cos, name="op_4")
        scores = mb.matmul(x=q, y=q, transpose_y=True, name="op_5")
        mask = mb.gather(x=const(4, 1, LENGTH, 8), indices=positions, axis=1, name="op_6")
        scores = mb.softmax(x=mb.add(x=scores, y=mask, name="op_7"), name="op_8")
        x = mb.add(x=x, y=mb.matmul(x=scores, y=q, name="op_9"), name="op_10")
        x = mb.mul(x=x, y=const(5, 64, 8, WIDTH), name="op_11")
        x = mb.reduce_mean(x=x, axes=[0], keep_dims=True, name="op_12")
        x = mb.linear(x=x, weight=const(6, 4 * WIDTH, WIDTH), name="op_13")
        x = mb.relu(x=x, name="op_14")
        x = mb.linear(x=x, weight=const(7, WIDTH, 4 * WIDTH), name="op_15")
        x = mb.matmul(x=x, y=const(8, WIDTH, VOCABULARY), name="op_16")
        x = mb.softmax(x=mb.mul(x=x, y=np.float32(0.5)), name="op_17")
        return mb.cast(x=x, dtype="fp16", name="logits")
    return convert(program, "iOS18")


def test_a_model_whose_names_say_nothing(models, bits):
    found, _ = bits(models(anonymous), "--nbits", 4, "--weight-threshold", 100, "--preset", "llm")
    constants = {int(name[len("const_"):]): n for name, n in found.items() if name.startswith("const_")}
    # the mask, 4, is too small to be listed among what is left alone
    assert constants == {0: 8, 1: 8, 2: 4, 3: None, 5: None, 6: 4, 7: 4, 8: 8}


def test_in_python(models):
    import palettizer.coreml as cto

    config = cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4, weight_threshold=100), preset="llm")
    written = {"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4, "weight_threshold": 100}}
    assert cto.OptimizationConfig.from_dict({**written, "preset": "llm"}) == config
    assert cto.OptimizationConfig.from_dict(written) != config
    small = cto.palettize_weights(str(models(anonymous)), config)
    assert small.report["const_8"]["nbits"] == 8
    config.set_op_name("const_.*", cto.OpPalettizerConfig(nbits=2, weight_threshold=100))
    small = cto.palettize_weights(str(models(anonymous)), config)
    assert {row["nbits"] for name, row in small.report.items() if name.startswith("const_")} == {2}
    config.preset = "nothing"
    with pytest.raises(ValueError, match='unknown preset "nothing"'):
        cto.palettize_weights(str(models(anonymous)), config)
    with pytest.raises(TypeError, match="preset is 3"):
        config.preset = 3
