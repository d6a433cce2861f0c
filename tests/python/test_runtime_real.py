"""Networks with the weights that they were trained to: CREPE hears pitches, Basic Pitch is its ONNX, MiniLM its torch, probes are exact."""

import coremltools as ct
import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from coremltools.converters.mil import Builder as mb
from safetensors.numpy import load_file, save_file
from torch_support import nets

import judge
import palettizer.coreml as cto
from palettizer.runtime import Session
from test_runtime_models import snr
from zoo import convert

# CREPE's classes of pitch, in cents above 10 Hz
CENTS = 1997.3794084376191 + 20 * np.arange(360)


def tones(count, seed):
    """Pitches from 80 to 1000 Hz in cents above 10 Hz, and frames of tones of five harmonics, of mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    pitches = np.exp(rng.uniform(np.log(80), np.log(1000), (count, 1)))
    turns = pitches * np.arange(1024) / 16000
    frames = sum(rng.uniform(0.3, 1, (count, 1)) / h * np.sin(2 * np.pi * (h * turns + rng.random((count, 1)))) for h in range(1, 6))
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    return 1200 * np.log2(pitches[:, 0] / 10), frames.astype(np.float32)


def heard(probabilities):
    """The mean of the cents around the most probable class."""
    around = np.abs(np.arange(360) - probabilities.argmax(1, keepdims=True)) <= 4
    return (probabilities * around) @ CENTS / (probabilities * around).sum(1)


def palettized(path, nbits):
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=nbits))
    return cto.palettize_weights(path, config, minimum_deployment_target=ct.target.iOS18, progress=False)


# the median distance from the true pitch, in cents, at most; and the SNR of the classes' probabilities against torch's, at least.
# Found were 2.3, 2.4, 2.4, 3.2 and 4.6 cents by the tiny one, 2.1, 1.9, 2.6, 3.6 and 4.9 by the full one.
HEARD = {16: (2.7, 60), 6: (2.7, 36), 4: (3, 23), 3: (4, 16), 2: (5.5, 7)}


@pytest.mark.parametrize(("size", "count"), [("tiny", 64), ("full", 8)])
def test_crepe_hears_the_pitch(size, count, real_models, model_folder):
    wanted, frames = tones(count, 0)
    with torch.no_grad():
        by_torch = nets.crepe(size, model_folder)(torch.tensor(frames)).numpy()
    path = real_models[f"crepe-{size}"]
    median, mean, ratio = {}, {}, {}
    for nbits in HEARD:
        found = Session(path if nbits == 16 else palettized(path, nbits)).predict({"frames": frames})["probabilities"]
        off = np.abs(heard(found) - wanted)
        median[nbits], mean[nbits], ratio[nbits] = np.median(off), off.mean(), snr(by_torch, found)
    assert all(median[nbits] <= most and ratio[nbits] >= least for nbits, (most, least) in HEARD.items()), (median, ratio)
    assert abs(median[6] - median[16]) < 0.3
    assert mean[16] < mean[4] < mean[2] and mean[6] < mean[3], mean
    assert [*ratio.values()] == sorted(ratio.values(), reverse=True), ratio


def test_basic_pitch_is_its_onnx(real_models):
    """Both were made of one network by their makers; the package computes in fp32."""
    package = real_models["basic-pitch"]
    time = np.arange(43844) / 22050
    rng = np.random.default_rng(0)
    sound = sum(np.sin(2 * np.pi * f * time) * np.exp(-4 * ((time + f / 900) % 1)) for f in (220, 331, 440, 659)) / 6
    sound = (sound + 0.01 * rng.normal(size=time.size)).astype(np.float32).reshape(1, -1, 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # they move the outputs further than we are
    theirs = onnxruntime.InferenceSession(str(package.parent / "nmp.onnx"), options, providers=["CPUExecutionProvider"])
    (taken,) = theirs.get_inputs()
    wanted = dict(zip([output.name for output in theirs.get_outputs()], theirs.run(None, {taken.name: sound})))
    found = Session(package).predict({"input_2": sound})
    # the contour of the pitch, the notes, and their beginnings
    for at, name in enumerate(["Identity", "Identity_1", "Identity_2"]):
        other = wanted[f"StatefulPartitionedCall:{at}"]
        assert found[name].shape == other.shape and other.max() > 0.5 and other.std() > 0.02
        np.testing.assert_allclose(found[name], other, rtol=0, atol=3e-5)


class Sentence(torch.nn.Module):
    """MiniLM of transformers with our own mask and embeddings: its own take them from shapes, which coremltools 9 cannot convert."""

    def __init__(self, folder, count):
        super().__init__()
        self.bert = transformers.BertModel.from_pretrained(folder, local_files_only=True)
        self.count = count

    def forward(self, tokens, mask):
        parts = self.bert.embeddings
        x = parts.word_embeddings(tokens) + parts.position_embeddings.weight[:self.count] + parts.token_type_embeddings.weight[0]
        x, mask = parts.LayerNorm(x), mask.to(x.dtype)
        for layer in self.bert.encoder.layer:
            x = layer(x, (1 - mask[:, None, None]) * -1e4)
        return torch.nn.functional.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)


def converted(network, precision, **inputs):
    with torch.no_grad():
        traced = torch.jit.trace(network, tuple(inputs.values()))
    specs = [ct.TensorType(name, value.shape, dtype=np.int32) for name, value in inputs.items()]
    return ct.convert(traced, inputs=specs, outputs=[ct.TensorType("y", dtype=np.float32)], convert_to="mlprogram", skip_model_load=True,
                      minimum_deployment_target=ct.target.iOS18, compute_precision=precision)


@pytest.fixture(scope="module")
def sentence(model_folder):
    """Tokens of a sentence, and the same with others behind it that are masked."""
    tokens = nets.Tokens(model_folder)("a child plays with a small dog in the park").int()
    longer = torch.cat([tokens, torch.arange(2000, 2005, dtype=torch.int32)[None]], 1)
    return tokens, longer, (torch.arange(longer.shape[1])[None] < tokens.shape[1]).int()


def run(package, **inputs):
    return Session(package).predict({name: value.numpy() for name, value in inputs.items()})["y"]


def test_minilm_is_its_torch(model_folder, sentence):
    tokens, *_ = sentence
    network = nets.minilm(model_folder)
    with torch.no_grad():
        wanted = network(tokens).numpy()
    np.testing.assert_allclose(run(converted(network, ct.precision.FLOAT32, tokens=tokens), tokens=tokens), wanted, atol=1e-6)
    half = converted(network, ct.precision.FLOAT16, tokens=tokens)
    np.testing.assert_allclose(run(half, tokens=tokens), wanted, atol=1e-3)


def test_minilm_of_transformers_with_a_mask(model_folder, sentence):
    tokens, longer, mask = sentence
    network = Sentence(nets._minilm_folder(model_folder), longer.shape[1]).eval()
    with torch.no_grad():
        wanted = network(longer, mask).numpy()
        alone = nets.minilm(model_folder)(tokens).numpy()
    found = run(converted(network, ct.precision.FLOAT32, tokens=longer, mask=mask), tokens=longer, mask=mask)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found, alone, atol=1e-6)  # what is masked is not heard


RNG = np.random.default_rng(23)
SMALL = {
    "kernel": (RNG.normal(size=(6, 2, 3, 3)) / 3).astype(np.float32), "bias": RNG.normal(size=6).astype(np.float32),
    "deep": (RNG.normal(size=(4, 6, 2, 2)) / 3).astype(np.float32), "dense": (RNG.normal(size=(5, 36)) / 3).astype(np.float32),
}


def small():
    """Two convolutions; what they find, squeezed, is an output, and its products with a matrix another."""
    @mb.program(input_specs=[mb.TensorSpec((1, 2, 6, 6))], opset_version=ct.target.iOS18)
    def program(x):
        given = {name: mb.const(val=value, name=name) for name, value in SMALL.items()}
        x = mb.silu(x=mb.conv(x=x, weight=given["kernel"], bias=given["bias"], pad_type="valid"))
        found = mb.tanh(x=mb.conv(x=x, weight=given["deep"], pad_type="valid"), name="found")
        return mb.sigmoid(x=mb.matmul(x=mb.reshape(x=found, shape=[1, 36]), y=given["dense"], transpose_y=True), name="a_name_before"), found
    return convert(program, "iOS18")


def small_in_torch(x, kernel, bias, deep, dense):
    """All elements of the outputs, in the order of the outputs' names."""
    x = torch.nn.functional.silu(torch.nn.functional.conv2d(x, kernel, bias))
    found = torch.tanh(torch.nn.functional.conv2d(x, deep))
    return torch.cat([torch.sigmoid(found.flatten() @ dense.T), found.flatten()])


def jacobians(frames):
    """For each sample the derivatives of all elements of the outputs with respect to each weight."""
    weights = [torch.tensor(value, dtype=torch.float64) for value in SMALL.values()]
    of_one = torch.func.jacrev(lambda *weights: small_in_torch(one, *weights), argnums=tuple(range(len(weights))))
    for frame in frames:
        one = torch.tensor(frame, dtype=torch.float64)[None]
        yield dict(zip(SMALL, of_one(*weights)))


class SplitMix64:
    """`palettizer_kernels::Random`."""

    ODD, MASK = 0x9E3779B97F4A7C15, 2**64 - 1

    def __init__(self, state):
        self.state = state

    @classmethod
    def stream(cls, seed, number):
        return cls(cls.mixed(seed + cls.ODD * (number + 1)))

    @classmethod
    def mixed(cls, z):
        z &= cls.MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & cls.MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & cls.MASK
        return z ^ z >> 31

    def bits(self):
        self.state = self.state + self.ODD & self.MASK
        return self.mixed(self.state)


@pytest.fixture
def sensitivities(palettizer, tmp_path):
    """`sensitivities(model, inputs, *flags)`: the file that the command writes, and what is in it."""
    def run(model, inputs, *flags):
        np.savez(tmp_path / "calibration.npz", **inputs)
        out = tmp_path / "s.safetensors"
        palettizer("sensitivity", model, "--inputs", tmp_path / "calibration.npz", "-o", out, "--force", *flags)
        return out, load_file(out)
    return run


def test_many_probes_are_the_exact_diagonal(models, sensitivities):
    """Of JᵀJ, the mean over samples: four of a hundred are enough to tell a wrong factor, a missing output or a missing sample."""
    frames = RNG.normal(size=(3, 2, 6, 6)).astype(np.float32)
    _, found = sensitivities(models(small), {"x": frames[:, None]}, "--probes", 800, "--weight-threshold", 0)
    assert found.keys() == SMALL.keys()
    each = list(jacobians(frames))
    for name, value in found.items():
        wanted = np.mean([one[name].square().sum(0).numpy() for one in each], 0)
        assert value.sum() == pytest.approx(wanted.sum(), rel=0.04), name
        assert np.corrcoef(value.ravel(), wanted.ravel())[0, 1] > 0.98, name


@pytest.mark.parametrize("seed", [0, 2**63 + 5])
def test_probes_with_the_same_signs_are_the_same(seed, models, sensitivities):
    frames = RNG.normal(size=(2, 2, 6, 6)).astype(np.float32)
    _, found = sensitivities(models(small), {"x": frames[:, None]}, "--probes", 3, "--weight-threshold", 0, "--seed", seed)
    for name, value in found.items():
        wanted = 0
        for at, one in enumerate(jacobians(frames)):
            for probe in range(3):
                random = SplitMix64.stream(SplitMix64.stream(seed, at).bits(), probe)
                signs = torch.tensor([-1.0 if random.bits() >> 63 else 1.0 for _ in one[name]], dtype=torch.float64)
                wanted = wanted + torch.tensordot(signs, one[name], 1).square().numpy() / 6
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-5 * wanted.max(), err_msg=name)


def noise(path, out, found):
    """What palettizing adds to the squares of a sample's outputs, as sensitivities have it: Σ s·(w' - w)²."""
    names = {key: var.op.name for key, var in judge.constants(path).items()}
    before, after = (judge.weights(package, 2048) for package in (path, out))
    assert {names[key] for key in before} == found.keys()
    return sum((found[names[key]] * (np.float32(after[key]) - np.float32(value)) ** 2).sum() for key, value in before.items())


# How much nearer to the float model's CREPE tiny's output is, in dB, when k-means is weighed by sensitivities, or by their roots: plain
# k-means has 7.7, 17.4, 25.0 and 37.7 dB at 2, 3, 4 and 6 bits, and over five calibrations and 192 tones sensitivities added -1.6, 0.0,
# 0.8 and 2.2, roots 1.0, 0.7, 0.8 and 2.2. Outputs move by sum s (w' - w)^2 where weights move by little, and each by itself: at 2 bits
# they do not. What one calibration gains at one number of bits is anywhere from 0 to 2 dB; the mean over all is this at least.
NEARER = {"whole": ((4, 6), 0.6), "root": ((2, 3, 4, 6), 0.5)}


def test_crepe_palettized_by_its_sensitivities(real_models, sensitivities, compress, tmp_path):
    path = real_models["crepe-tiny"]
    frames = tones(96, 0)[1]
    clean = Session(path).predict({"frames": frames})["probabilities"]
    plain = {nbits: palettized_at(compress, path, nbits) for nbits in (2, 3, 4, 6)}

    def ratio(package):
        return snr(clean, Session(package, precision="fast").predict({"frames": frames})["probabilities"])
    before = {nbits: ratio(package) for nbits, package in plain.items()}
    nearer = {kind: [] for kind in NEARER}
    for seed in (100, 200):
        file, found = sensitivities(path, {"frames": tones(64, seed)[1][:, None]})
        roots = tmp_path / "roots.safetensors"
        save_file({name: np.sqrt(value) for name, value in found.items()}, roots)
        for kind, given in {"whole": file, "root": roots}.items():
            for nbits in NEARER[kind][0]:
                out = palettized_at(compress, path, nbits, "--sensitivity", given)
                nearer[kind].append(ratio(out) - before[nbits])
                if kind == "whole":
                    assert noise(path, out, found) < 0.8 * noise(path, plain[nbits], found)
        # a probe says beforehand how much noise there will be
        power = (clean.astype(np.float64) ** 2).sum(1).mean()
        assert noise(path, plain[6], found) == pytest.approx(power / 10 ** (before[6] / 10), rel=0.25)
    assert all(np.mean(nearer[kind]) >= least for kind, (_, least) in NEARER.items()), (nearer, before)


def palettized_at(compress, path, nbits, *flags):
    return compress(path, "--nbits", nbits, "--minimum-deployment-target", "iOS18", *flags)[0]
