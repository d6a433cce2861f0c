"""Budgets: the bytes that were promised, on real models and on all kinds of weights, and what inputs are good for."""

import json
import subprocess
import sys
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as peer
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from safetensors.numpy import save_file

import palettizer.coreml as cto
import zoo_graphs
from judge import constants, lut_op, table, weights
from palettizer.runtime import Session
from peer import pruned, quantized
from zoo import convert

RNG = np.random.default_rng(14)
W1, W2, W3 = ((RNG.standard_t(4, shape) / np.sqrt(shape[1])).astype(np.float16) for shape in [(96, 48), (128, 96), (40, 128)])


def network(target="iOS18"):
    """Three layers; the first hardly matters, for its outputs are made small."""
    @mb.program(input_specs=[mb.TensorSpec((1, 48), dtype=ct.converters.mil.mil.types.fp16)], opset_version=getattr(ct.target, target))
    def program(x):
        x = mb.linear(x=x, weight=mb.const(val=W1, name="first"), name="one")
        big = mb.tile(x=mb.const(val=RNG.normal(size=(1, 1)).astype(np.float16), name="ones"), reps=[1, 96], name="big")
        x = mb.add(x=mb.mul(x=x, y=np.float16(0.01)), y=big, name="sum")
        x = mb.relu(x=mb.linear(x=x, weight=mb.const(val=W2, name="second"), name="two"))
        return mb.linear(x=x, weight=mb.const(val=W3, name="third"), name="three")
    return convert(program, target)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("budget") / "network.mlpackage"
    network().save(str(path))
    return path


def on_disk(path):
    path = Path(path)
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size


@pytest.fixture
def compress(palettizer, tmp_path):
    """Compresses to a target; gives the report and the output."""
    def run(source, *flags, name="small.mlpackage", **options):
        out, report = tmp_path / name, tmp_path / "report.json"
        done = palettizer("compress", source, "-o", out, "--force", "--report", report, *flags, **options)
        return (json.loads(report.read_text()) if done.returncode == 0 else done), out
    return run


@pytest.mark.parametrize("name", ["tiny.mlpackage", "nmp.mlpackage", "network"])
def test_what_is_promised_is_written(name, model_folder, package, compress):
    source = package if name == "network" else next(path for path in model_folder.rglob(name))
    whole, least = on_disk(source), None
    for part in (0.2, 0.3, 0.45, 0.8):
        size = int(whole * part)
        report, out = compress(source, "--target-size", size, "--minimum-deployment-target", "iOS18", check=False)
        if not isinstance(report, dict):
            assert "the least that can be had is" in report.stderr and part < 0.8
            continue
        found = report["budget"]
        assert on_disk(out) <= size and report["bytes_after"] <= found["bytes"]
        assert found["bytes"] - report["bytes_after"] <= max(report["bytes_after"] // 1000, 96)
        assert found["gap"] <= 1e-3
        assert least is None or report["bytes_after"] >= least
        least = report["bytes_after"]
        ct.models.MLModel(str(out), skip_model_load=True)
        chosen = [weight for weight in report["weights"] if weight["status"] == "compressed"]
        assert chosen and all(f"nbits={weight['nbits']}" in weight["budget"]["form"] for weight in chosen)
    assert least is not None


GRAPHS = {name: getattr(zoo_graphs, name) for name in (
    "mixed", "shared", "nested_cond", "nested_while", "flexible", "stateful", "attention", "multifunction", "pipeline", "with_extras", "flow")}
GRAPHS |= {"pruned": lambda: pruned(zoo_graphs.shared()), "quantized": lambda: quantized(zoo_graphs.mixed())}
CHOICES = ((), ("--choices", "nbits=2/4/8,group_size=none/2,per-channel-scale=true/false"), ("--choices", "nbits=4/8,cluster_dim=1/2,lut_dtype=float/int8/uint8"))


@pytest.mark.parametrize("graph", GRAPHS)
def test_prices_of_every_kind_of_program(graph, compress, tmp_path):
    """Loops, functions, pipelines, states, files beside, and weights that are compressed already, in all kinds of forms."""
    made, source = GRAPHS[graph](), tmp_path / "source.mlpackage"
    if isinstance(made, Path):
        source = made
    else:
        made.save(str(source))
    whole, reached = on_disk(source), 0
    for choices in CHOICES:
        for part in (0.5, 0.7, 0.95):
            flags = ("--target-size", int(whole * part), "--weight-threshold", 16, "--joint-compression", *choices)
            report, out = compress(source, *flags, "--minimum-deployment-target", "iOS18", check=False)
            if not isinstance(report, dict):
                assert "the least that can be had is" in report.stderr
                continue
            reached += 1
            written = sum(row["status"] == "compressed" for row in report["weights"])
            assert on_disk(out) <= int(whole * part)
            assert 0 <= report["budget"]["bytes"] - report["bytes_after"] <= 64 + 8 * written
    assert reached


TARGETS = [("--target-ratio", 3.5), ("--target-bpw", 4.2), ("--min-snr", 18)]


@pytest.mark.parametrize("target", ["iOS16", "iOS18", "iOS26"])
@pytest.mark.parametrize("flag, number", TARGETS)
def test_other_goals_on_every_opset(flag, number, target, package, compress):
    report, out = compress(package, flag, number, "--minimum-deployment-target", target)
    found = report["budget"]
    assert found["goal"] == flag[2:].replace("-", "_") and found["asked"] == number
    if flag == "--target-ratio":
        assert report["bytes_after"] * number <= report["bytes_before"]
    elif flag == "--target-bpw":
        assert report["bits_per_weight"] <= number
    else:
        assert found["expected_snr_db"] >= number
    assert report["bytes_after"] <= found["bytes"] <= report["bytes_after"] + 96
    for name, (before, after) in pairs(package, out).items():
        noise = ((before - after) ** 2).sum() / (before ** 2).sum()
        row = next(row for row in report["weights"] if row["name"] == name)
        assert row["snr_db"] == pytest.approx(-10 * np.log10(noise), abs=1e-3)


def pairs(before, after):
    """The weights of two packages, dense, as coremltools has them."""
    by_op = lambda path: {op: value for (_, _, op, name), value in weights(path, 2048).items() if name == "weight"}  # noqa: E731
    names = {"one": "first", "two": "second", "three": "third"}
    old, new = by_op(before), by_op(after)
    return {names[op]: (old[op].astype(np.float64), new[op].astype(np.float64)) for op in names}


def test_old_opsets_have_no_groups_and_no_three_bits(package, compress, tmp_path):
    old = tmp_path / "old.mlpackage"
    network("iOS16").save(str(old))
    report, _ = compress(old, "--target-ratio", 3.2)
    rows = [row for row in report["weights"] if row["status"] == "compressed"]
    assert {row["granularity"] for row in rows} == {"per_tensor"} and 3 not in {row["nbits"] for row in rows}
    done, _ = compress(old, "--target-ratio", 3.2, "--choices", "nbits=3/4", check=False)
    assert done.returncode == 1 and "iOS18" in done.stderr


def test_a_recipe_gives_the_same_model_and_the_peer_reads_it(package, compress, tmp_path, palettizer):
    recipe = tmp_path / "recipe.yaml"
    _, out = compress(package, "--target-ratio", 3.7, "--minimum-deployment-target", "iOS18", "--recipe", recipe)
    again = tmp_path / "again.mlpackage"
    palettizer("compress", package, "-o", again, "--config", recipe, "--minimum-deployment-target", "iOS18")
    same = lambda path: {file.relative_to(path): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}  # noqa: E731
    assert same(out) == same(again)
    config = peer.OptimizationConfig.from_yaml(str(recipe))
    theirs = peer.palettize_weights(ct.models.MLModel(str(package), skip_model_load=True), config)
    theirs.save(str(tmp_path / "theirs.mlpackage"))
    tables = lambda path: {key: table(var)[::2] for key, var in constants(path).items() if lut_op(var)}  # noqa: E731
    assert tables(out) == tables(tmp_path / "theirs.mlpackage") and len(tables(out)) == 3
    done = palettizer("compress", package, "-o", tmp_path / "x.mlpackage", "--target-ratio", 3, "--recipe", recipe, check=False)
    assert done.returncode == 1 and "exists" in done.stderr and not (tmp_path / "x.mlpackage").exists()


def test_curves_are_kept_and_used(package, compress, tmp_path):
    curves = tmp_path / "curves.json"
    flags = ("--minimum-deployment-target", "iOS18", "--curves", curves)
    first, _ = compress(package, "--target-ratio", 3, *flags)
    text = curves.read_text()
    second, _ = compress(package, "--target-ratio", 3, *flags)
    plain, _ = compress(package, "--target-ratio", 3, "--minimum-deployment-target", "iOS18")
    assert curves.read_text() == text
    for report in (first, second, plain):
        report.pop("seconds")
    assert first == second == plain
    # other choices are added, and what is known stays
    compress(package, "--target-ratio", 1.5, "--choices", "nbits=4,group_size=2", *flags)
    added = json.loads(curves.read_text())["weights"]["first"]["forms"]
    assert set(json.loads(text)["weights"]["first"]["forms"]) < set(added) and "mode=kmeans,nbits=4,group_size=2" in added
    # smaller than they are: no output
    bent = json.loads(text)
    for curve in bent["weights"].values():
        for form in curve["forms"].values():
            form["costs"]["bytes"] //= 3
    curves.write_text(json.dumps(bent))
    done, out = compress(package, "--target-ratio", 6, *flags, name="bent.mlpackage", check=False)
    assert done.returncode == 1 and "are the curves of this model?" in done.stderr and not out.exists()
    for text in ("", "{}", "[1]", '{"version": 9, "weights": {}}', "\0"):
        curves.write_text(text)
        done, _ = compress(package, "--target-ratio", 3, *flags, check=False)
        assert done.returncode == 1 and "no file of curves" in done.stderr and curves.read_text() == text


def samples(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 1, 48)).astype(np.float16)


def noise(before, after, given):
    found = [[Session(path).predict({"x": x}) for x in given] for path in (before, after)]
    (name,) = found[0][0]
    ours, theirs = (np.stack([one[name] for one in all]).astype(np.float64) for all in found)
    return ((ours - theirs) ** 2).sum() / (ours ** 2).sum()


def test_inputs_show_which_weight_matters(package, compress, tmp_path):
    np.savez(tmp_path / "inputs.npz", x=samples(16, 1))
    flags = ("--target-ratio", 4.5, "--minimum-deployment-target", "iOS18")
    blind, out = compress(package, *flags)
    blindly = noise(package, out, samples(16, 2))
    report, out = compress(package, *flags, "--inputs", tmp_path / "inputs.npz")
    found = noise(package, out, samples(16, 2))
    assert report["bytes_after"] * 4.5 <= report["bytes_before"] and report["budget"]["measure"] == "calibrated"
    assert found < blindly / 1.5
    assert report["budget"]["measured_snr_db"] == pytest.approx(-10 * np.log10(found), abs=1.5)
    bits = {row["name"]: row["nbits"] for row in report["weights"] if row["status"] == "compressed"}
    assert bits["first"] < min(bits["second"], bits["third"])
    # a quality is reached by measurement
    for snr in (12, 25):
        report, out = compress(package, "--min-snr", snr, "--minimum-deployment-target", "iOS18", "--inputs", tmp_path / "inputs.npz")
        assert report["budget"]["measured_snr_db"] >= snr


def test_inputs_on_a_program_whose_opset_has_few_forms(compress, tmp_path):
    old = tmp_path / "old.mlpackage"
    network("iOS16").save(str(old))
    np.savez(tmp_path / "inputs.npz", x=samples(4, 1))
    report, out = compress(old, "--target-ratio", 3, "--inputs", tmp_path / "inputs.npz")
    assert report["bytes_after"] * 3 <= report["bytes_before"] and report["target"] == "iOS16"


def test_in_python_as_in_the_command(package, compress, tmp_path):
    report, out = compress(package, "--target-size", "11kB", "--minimum-deployment-target", "iOS18", "--choices", "nbits=2/3/4/6")
    budget = cto.Budget(target_size="11kB", choices={"nbits": [2, 3, 4, 6]})
    small = cto.palettize_weights(str(package), budget=budget, minimum_deployment_target="iOS18", progress=False)
    assert small.report.bytes_after == report["bytes_after"]
    config = cto.OptimizationConfig.from_dict({"config_type": "OpPalettizerConfig", "budget": {"target_size": "11kB", "choices": {"nbits": [2, 3, 4, 6]}}})
    again = cto.palettize_weights(ct.models.MLModel(str(package), skip_model_load=True), config, minimum_deployment_target=ct.target.iOS18, progress=False)
    again.save(str(tmp_path / "again.mlpackage"))
    assert on_disk(tmp_path / "again.mlpackage") <= 11000
    (tmp_path / "budget.yaml").write_text("config_type: OpPalettizerConfig\nbudget:\n  target_size: 11kB\n  choices: {nbits: [2, 3, 4, 6]}\n")
    by_file, _ = compress(package, "--config", tmp_path / "budget.yaml", "--minimum-deployment-target", "iOS18", name="file.mlpackage")
    assert by_file["bytes_after"] == report["bytes_after"]
    given = [{"x": x} for x in samples(8, 1)]
    small = cto.palettize_weights(str(package), budget=cto.Budget(target_ratio=4.5, curves=tmp_path / "c.json"), inputs=given,
                                  minimum_deployment_target="iOS18", progress=False)
    assert (tmp_path / "c.json").exists() and small.report.bytes_after * 4.5 <= small.report.bytes_before


@pytest.mark.parametrize("make, error, words", [
    (lambda: cto.Budget(), ValueError, "found none"),
    (lambda: cto.Budget(target_size=1, min_snr=2), ValueError, "found target_size, min_snr"),
    (lambda: cto.Budget(target_bpw="3"), TypeError, "target_bpw is '3'"),
    (lambda: cto.Budget(target_size=True), TypeError, "target_size is True"),
    (lambda: cto.Budget(target_ratio=2, choices={"nbits": 4}), TypeError, "expected a list of values"),
    (lambda: cto.palettize_weights(cto.demo(), budget=cto.Budget(target_size="20 M")), ValueError, "target_size is 20 M; expected bytes"),
    (lambda: cto.palettize_weights(cto.demo(), budget=cto.Budget(target_ratio=2, choices={"nbits": [5]})), ValueError, "nbits is 5"),
    (lambda: cto.palettize_weights(cto.demo(), budget=cto.Budget(target_ratio=1e9)), ValueError, "the least that can be had is"),
    (lambda: cto.palettize_weights(cto.demo(), budget=3), TypeError, "expected a palettizer.coreml.Budget"),
    (lambda: cto.palettize_weights(cto.demo(), cto.OptimizationConfig(), inputs=[{}]), ValueError, "inputs are for a budget"),
    (lambda: cto.palettize_weights(cto.demo(), budget=cto.Budget(target_ratio=3), inputs=[]), ValueError, "an empty list"),
    (lambda: cto.palettize_weights(cto.demo(), budget=cto.Budget(target_ratio=3), inputs={"image": 3}), TypeError, "expected a list"),
    (lambda: cto.palettize_weights(cto.demo()), ValueError, "config must be of type OptimizationConfig"),
])
def test_what_is_no_budget_is_refused_in_python(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("flags, code, words", [
    (("--target-size", "20M"), 2, "expected bytes, such as 20000000"),
    (("--target-size", "1MB", "--target-bpw", "3"), 2, "cannot be used with"),
    (("--target-size", "1MB", "--nbits", "4"), 2, "--nbits says what --target-size is to choose"),
    (("--min-snr", "20", "--group-size", "4"), 2, "--group-size says what --min-snr is to choose"),
    (("--nbits", "4", "--choices", "nbits=2"), 2, "--choices is for a budget"),
    (("--nbits", "4", "--recipe", "x.yaml"), 2, "--recipe is for a budget"),
    (("--target-ratio", "3", "--recipe", "x.txt"), 2, "--recipe must end in .yaml"),
    (("--target-ratio", "3", "--choices", "bits=2"), 2, "unknown key bits"),
    (("--target-ratio", "3", "--samples", "4"), 2, "--inputs"),
    (("--target-ratio", "900"), 1, "the least that can be had is"),
    (("--min-snr", "200"), 1, "the best that the choices come to"),
    (("--target-ratio", "3", "--inputs", "missing.npz"), 1, "missing.npz"),
])
def test_what_is_no_budget_is_refused_in_the_command(flags, code, words, package, palettizer, tmp_path):
    done = palettizer("compress", package, "-o", tmp_path / "x.mlpackage", *flags, check=False)
    assert done.returncode == code and words in done.stderr and not (tmp_path / "x.mlpackage").exists()


@pytest.mark.parametrize("text, words", [
    ("budget: 3", "a mapping such as {target_size: 20MB}"),
    ("budget: {}", "a budget without a goal"),
    ("budget: {target_size: 20MB, min_snr: 3}", "target_size and min_snr"),
    ("budget: {target_bpw: '3'}", "budget.target_bpw"),
    ("budget: {target_ratio: -1}", "budget.target_ratio"),
    ("budget: {target_ratio: 3, choices: {nbits: 4}}", "a list of values"),
    ("budget: {target_ratio: 3, choices: {nbits: [5]}}", "nbits is 5"),
    ("budget: {target_ratio: 3, size: 3}", "unknown key budget.size"),
])
def test_what_is_no_budget_is_refused_in_files(text, words, package, palettizer, tmp_path):
    (tmp_path / "c.yaml").write_text(f"config_type: OpPalettizerConfig\n{text}\n")
    done = palettizer("compress", package, "-o", tmp_path / "x.mlpackage", "--config", tmp_path / "c.yaml", check=False)
    assert done.returncode == 1 and words in done.stderr


@pytest.mark.parametrize("sharded", [False, True])
def test_checkpoints(sharded, compress, tmp_path):
    tensors = {f"layers.{at}.weight": (RNG.standard_t(3, (64 + 16 * at, 80)) / 9).astype(np.float32) for at in range(6)}
    tensors |= {"norm.weight": np.ones(64, np.float32), "table": RNG.normal(size=(7, 31, 80)).astype(np.float16)}
    source = tmp_path / "model.safetensors"
    if sharded:
        source = tmp_path / "model"
        source.mkdir()
        names = sorted(tensors)
        files = {name: f"model-0000{1 + (at > 3)}-of-00002.safetensors" for at, name in enumerate(names)}
        for file in set(files.values()):
            save_file({name: tensors[name] for name in names if files[name] == file}, source / file)
        total = sum(tensor.nbytes for tensor in tensors.values())
        (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": files}))
    else:
        save_file(tensors, source)
    for size in (40_000, 60_000, 75_001):
        report, out = compress(source, "--target-size", size, name=source.name.replace("model", "small"))
        assert on_disk(out) <= size and report["bytes_after"] <= report["budget"]["bytes"]
        assert report["budget"]["bytes"] - report["bytes_after"] <= report["bytes_after"] // 50
        assert len({row["nbits"] for row in report["weights"] if row["status"] == "compressed"}) >= 1
    sensitivities = {name: np.full(tensor.shape, 1e-6 if "5" in name else 1, np.float32) for name, tensor in tensors.items()}
    save_file(sensitivities, tmp_path / "s.safetensors")
    report, _ = compress(source, "--target-size", 60_000, "--sensitivity", tmp_path / "s.safetensors", name="sensitive" + source.suffix)
    bits = {row["name"]: row["nbits"] for row in report["weights"] if row["status"] == "compressed"}
    assert report["budget"]["measure"] == "sensitivity" and report["budget"]["expected_snr_db"] is None
    assert bits["layers.5.weight"] == min(bits.values())
    done, _ = compress(source, "--min-snr", 20, "--sensitivity", tmp_path / "s.safetensors", check=False)
    assert done.returncode == 1 and "sensitivities do not say it" in done.stderr
    done, _ = compress(source, "--target-size", 60_000, "--inputs", tmp_path / "s.safetensors", check=False)
    assert done.returncode == 2 and "--inputs is for Core ML models" in done.stderr


def test_recommendations_hold(package, palettizer, compress, tmp_path):
    """What the table says of a size is what the command that it names comes to."""
    np.savez(tmp_path / "inputs.npz", x=samples(8, 1))
    flags = ("--minimum-deployment-target", "iOS18", "--choices", "nbits=2/3/4/6/8", "--curves", tmp_path / "curves.json")
    for more in ((), ("--inputs", tmp_path / "inputs.npz")):
        table = json.loads(palettizer("recommend", package, *flags, *more, "--report", "-", "--quiet").stdout)
        rows = table["recommendations"]
        assert len(rows) >= 8 and table["bytes_before"] > rows[-1]["bytes"]
        snr = [row["measured_snr_db" if more else "expected_snr_db"] for row in rows]
        assert snr == sorted(snr) and [row["target_size"] for row in rows] == sorted({row["target_size"] for row in rows})
        for row in rows[1::4]:
            words = table["command"].split()
            assert words[:3] == ["palettizer", "compress", str(package)]
            report, out = compress(package, *words[5:], "--target-size", row["target_size"])
            assert on_disk(out) <= row["target_size"] and report["bytes_after"] <= row["bytes"]
            assert report["budget"]["measured_snr_db"] == row["measured_snr_db"]
            assert more or report["budget"]["expected_snr_db"] == row["expected_snr_db"]
    shown = palettizer("recommend", package, "--sizes", 3).stdout
    assert "--target-size BYTES" in shown and shown.count("×") == 3
    palettizer("recommend", package, *flags, *more, "--report", tmp_path / "sizes.html", "--sizes", 4)
    page = (tmp_path / "sizes.html").read_text()
    assert "<title>Palettizer</title>" in page and "recommendations" in page and "--target-size" in page
    save_file({"w": RNG.normal(size=(64, 64)).astype(np.float32)}, tmp_path / "m.safetensors")
    shown = palettizer("recommend", tmp_path / "m.safetensors", "--sizes", 4).stdout
    assert f"palettizer compress {tmp_path}/m.safetensors -o small.safetensors" in " ".join(shown.split())
    done = palettizer("recommend", tmp_path / "m.safetensors", "--inputs", tmp_path / "inputs.npz", check=False)
    assert done.returncode == 2 and "--inputs is for Core ML models" in done.stderr


@pytest.mark.parametrize("module", ["palettizer", "palettizer.coreml", "palettizer.runtime", "palettizer.torch", "palettizer.distributed"])
def test_any_module_can_be_the_first(module):
    """The choice runs programs, and what runs programs knows models: neither may need the other to be imported."""
    subprocess.run([sys.executable, "-c", f"import {module}; import palettizer.runtime as r, palettizer.coreml as c; r.Session(c.demo())"], check=True)


def test_threads_change_nothing(package, compress):
    flags = ("--target-ratio", 4, "--minimum-deployment-target", "iOS18")
    one, first = compress(package, *flags, "--threads", 1, name="a.mlpackage")
    many, second = compress(package, *flags, "--threads", 5, name="b.mlpackage")
    assert one["budget"] == many["budget"]
    read = lambda out: (out / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()  # noqa: E731
    assert read(first) == read(second)
