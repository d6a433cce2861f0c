"""`palettizer run`, `compare` and `sensitivity`, and the files of values that they read and write."""

import io
import json
import zipfile

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.proto import FeatureTypes_pb2
from PIL import Image
from safetensors.numpy import load_file, save_file

import zoo_graphs
from palettizer import _native
from palettizer.runtime import Session
from zoo import convert

RNG = np.random.default_rng(11)
W1, W2 = RNG.normal(size=(64, 48)).astype(np.float32), (RNG.normal(size=(40, 64)) / 8).astype(np.float32)


def network():
    """Two layers, and logits of 40 classes."""
    @mb.program(input_specs=[mb.TensorSpec((1, 48))], opset_version=ct.target.iOS18)
    def program(x):
        x = mb.linear(x=x, weight=mb.const(val=W1, name="first_w"), name="first")
        return mb.linear(x=mb.tanh(x=x, name="squashed"), weight=mb.const(val=W2, name="second_w"), name="logits")
    return convert(program, "iOS18")


def classifier():
    """The same, and their probabilities."""
    @mb.program(input_specs=[mb.TensorSpec((1, 48))], opset_version=ct.target.iOS18)
    def program(x):
        x = mb.linear(x=x, weight=mb.const(val=W1, name="first_w"), name="first")
        x = mb.linear(x=mb.tanh(x=x, name="squashed"), weight=mb.const(val=W2, name="second_w"), name="logits")
        return mb.softmax(x=x, axis=-1, name="scores")
    return convert(program, "iOS18", classifier_config=ct.ClassifierConfig([f"class {i}" for i in range(40)]))


def photo(color="RGB"):
    """Gives back the image that it takes, 6 wide and 4 high."""
    channels = 1 if color == "GRAYSCALE" else 3

    @mb.program(input_specs=[mb.TensorSpec((1, channels, 4, 6))], opset_version=ct.target.iOS18)
    def program(x):
        return mb.relu(x=x, name="y")
    mlmodel = convert(program, "iOS18")
    spec = mlmodel.get_spec()
    for feature in (spec.description.input[0], spec.description.output[0]):
        image = feature.type.imageType
        image.colorSpace = getattr(FeatureTypes_pb2.ImageFeatureType, color)
        image.width, image.height = 6, 4
    return ct.models.MLModel(spec, weights_dir=mlmodel.weights_dir, skip_model_load=True)


def inputs(count):
    return RNG.normal(size=(count, 48)).astype(np.float32)


def forward(x):
    return torch.tanh(x @ torch.tensor(W1).double().T) @ torch.tensor(W2).double().T


@pytest.mark.parametrize("form", ["npz", "compressed", "fortran", "f8", "npy", "safetensors"])
def test_arrays_in_and_out(form, models, palettizer, tmp_path):
    x = inputs(5)
    given = tmp_path / ("x." + (form if form in ("npy", "safetensors") else "npz"))
    match form:
        case "npz":
            np.savez(given, x=x)
        case "compressed":
            np.savez_compressed(given, x=x)
        case "fortran":
            np.savez(given, x=np.asfortranarray(x))
        case "f8":
            np.savez(given, x=x.astype(">f8")[:, None])  # a sample is [1, 48]
        case "npy":
            np.save(given, x)
        case "safetensors":
            save_file({"x": x}, given)
    wanted = forward(torch.tensor(x).double()).numpy()
    for name in ("y.npz", "y.npy", "y.safetensors"):
        out = tmp_path / name
        palettizer("run", models(network), "--inputs", given, "-o", out)
        found = np.load(out)["logits"] if name == "y.npz" else np.load(out) if name == "y.npy" else load_file(out)["logits"]
        assert found.shape == (5, 40) and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_run_says(models, palettizer, tmp_path):
    np.savez(tmp_path / "x.npz", x=inputs(1))
    text = palettizer("run", models(network), "--inputs", tmp_path / "x.npz").stdout
    assert "logits" in text and "1×40" in text and "fp32" in text
    said = json.loads(palettizer("run", models(network), "--random", "--seed", 3, "--json").stdout)
    (output,) = said["outputs"]
    assert output["name"] == "logits" and output["shape"] == [1, 40] and output["least"] < output["mean"] < output["largest"]
    again = json.loads(palettizer("run", models(network), "--random", "--seed", 3, "--threads", 1, "--json").stdout)
    other = json.loads(palettizer("run", models(network), "--random", "--seed", 4, "--json").stdout)
    assert again == said and other != said
    text = palettizer("run", models(classifier), "--random").stdout
    assert "class " in text and "%" in text


def test_times(models, palettizer):
    said = json.loads(palettizer("run", models(network), "--random", "--time", 3, "--json").stdout)["profile"]
    assert {taken["op_type"] for taken in said["types"]} == {"linear", "tanh"}
    assert {taken["name"] for taken in said["operations"]} == {"first", "squashed", "logits"}
    assert sum(taken["share"] for taken in said["types"]) == pytest.approx(1)
    assert said["runs"] == 3 and said["seconds"] > 0
    text = palettizer("run", models(network), "--random", "--time", 2).stdout
    assert "op type" in text and "a run, the mean of 2 runs" in text


@pytest.mark.parametrize("name", ["in.png", "in.jpg"])
@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAYSCALE"])
def test_pictures(color, name, models, palettizer, tmp_path):
    values = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    options = {} if name == "in.png" else {"quality": 100, "subsampling": 0}
    Image.fromarray(values).save(tmp_path / name, **options)
    palettizer("run", models(photo, color), "--inputs", tmp_path / name, "-o", tmp_path / "out.png")
    found = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    read = Image.open(tmp_path / name).convert("L" if color == "GRAYSCALE" else "RGB")
    assert np.abs(found - np.asarray(read).astype(int)).max() <= (0 if name == "in.png" else 4)  # decoders of JPEG differ by little


def test_pictures_of_other_sizes(models, palettizer, tmp_path):
    """What is too long is cut off on both ends, the rest scaled: here the middle is white."""
    values = np.zeros((8, 24, 3), np.uint8)
    values[:, 6:18] = 255
    Image.fromarray(values).save(tmp_path / "wide.png")
    palettizer("run", models(photo), "--inputs", tmp_path / "wide.png", "-o", tmp_path / "out.npz")
    found = np.load(tmp_path / "out.npz")["y"]
    assert found.shape == (4, 6, 3) and found.dtype == np.uint8 and (found == 255).all()


def test_folders_of_pictures(models, palettizer, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    pictures = [RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8) for _ in range(3)]
    for values, place in zip(pictures, ["a.png", "b.png", "more/c.png"]):
        Image.fromarray(values).save(folder / place)
    (folder / ".hidden").write_text("not for us")
    palettizer("run", models(photo), "--inputs", folder, "-o", tmp_path / "out.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], np.stack(pictures))
    np.savez(tmp_path / "bytes.npz", x=np.stack(pictures))
    palettizer("run", models(photo), "--inputs", tmp_path / "bytes.npz", "-o", tmp_path / "again.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "again.npz")["y"], np.stack(pictures))


def npz(**arrays):
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def archive(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


BAD_FILES = {
    "missing.npz": (None, ["missing.npz"]), "x.txt": (b"1 2 3", ["ends in .npz"]), "noise.npz": (b"no archive", ["noise.npz"]),
    "cut.npz": (npz(x=inputs(1))[:-30], ["cut.npz"]), "names.npz": (npz(y=inputs(1)), ["no array \"x\"", "x [1, 48]"]),
    "more.npz": (npz(x=inputs(1), y=inputs(1)), ["\"y\" is none of the inputs"]),
    "shape.npz": (npz(x=inputs(1)[:, 1:]), ["\"x\" is of fp32 [1, 47]", "[1, 48]"]),
    "objects.npz": (npz(x=np.array([{"a": 1}])), ["|O"]), "complex.npz": (npz(x=inputs(1) * 1j), ["<c8"]),
    "none.npz": (npz(x=inputs(0)), ["no samples"]), "text.npz": (archive(readme=b"hi"), ["is no .npy file"]),
    "text.npy": (b"1 2 3", ["does not begin as"]), "noise.png": (b"\x89PNG\r\n", ["one such input"]),
    "x.safetensors": (b"\x00" * 20, ["x.safetensors"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_do_not_fit(name, models, refuses, tmp_path):
    data, words = BAD_FILES[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    refuses(words, "run", models(network), "--inputs", tmp_path / name)


def test_damaged_pictures(models, refuses, tmp_path):
    (tmp_path / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 50)
    refuses(["noise.png"], "run", models(photo), "--inputs", tmp_path / "noise.png")
    (tmp_path / "other.jpg").write_bytes(b"GIF89a" + b"\x00" * 50)
    refuses(["neither PNG nor JPEG"], "run", models(photo), "--inputs", tmp_path / "other.jpg")


def test_flags_that_do_not_fit(models, refuses, tmp_path):
    model = models(network)
    np.savez(tmp_path / "x.npz", x=inputs(1))
    for words, flags in [
        (["--inputs FILE or --random"], []), (["cannot be used with"], ["--random", "--inputs", "x.npz"]),
        (["no function is called \"other\""], ["--random", "--function", "other"]),
        (["did not end within 1 operations"], ["--random", "--max-steps", 1]),
        (["ends in .npz"], ["--random", "-o", "y.csv"]), (["room for one image"], ["--random", "-o", tmp_path / "y.png"]),
        (["it would replace that"], ["--inputs", tmp_path / "x.npz", "-o", tmp_path / "x.npz"]),
    ]:
        refuses(words, "run", model, *flags)


def compressed(palettizer, model, out, nbits, *flags):
    palettizer("compress", model, "-o", out, "--nbits", nbits, *flags)
    return out


def test_compare(models, palettizer, tmp_path):
    model = models(network)
    small = compressed(palettizer, model, tmp_path / "small.mlpackage", 3)
    x = inputs(20)
    np.savez(tmp_path / "x.npz", x=x)
    report = tmp_path / "report.json"
    said = palettizer("compare", model, small, "--inputs", tmp_path / "x.npz", "--layers", "--report", report).stdout
    found = json.loads(report.read_text())
    a, b = (np.concatenate([Session(str(path)).predict({"x": one[None]})["logits"] for one in x]).astype(np.float64)
            for path in (model, small))
    (output,) = found["outputs"]
    assert found["samples"] == 20 and output["name"] == "logits" and not output["exact"]
    assert output["snr_db"] == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=1e-6)
    assert output["psnr_db"] == pytest.approx(10 * np.log10((a**2).max() / ((a - b) ** 2).mean()), abs=1e-6)
    assert output["cosine"] == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()), abs=1e-9)
    assert output["largest_error"] == pytest.approx(np.abs(a - b).max(), rel=1e-6)
    assert output["agreement"] is None and output["kl"] is None
    assert [layer["name"] for layer in sorted(found["layers"], key=lambda layer: layer["order"])] == ["first", "squashed"]
    ranks = [layer["snr_db"] for layer in found["layers"]]
    assert ranks == sorted(ranks)
    assert "logits" in said and "squashed" in said and "20 samples of" in said
    assert json.loads(palettizer("compare", model, small, "--inputs", tmp_path / "x.npz", "--layers", "--report", "-").stdout) == found
    page = tmp_path / "report.html"
    palettizer("compare", model, small, "--random", "--report", page)
    assert "logits" in page.read_text()


def test_a_model_and_itself(models, palettizer):
    said = palettizer("compare", models(network), models(network), "--min-snr", 300, "--min-agreement", 1).stdout
    assert "exact" in said and "Nothing differs on 8 random inputs" in said and "100.00%" in said


def test_minima(models, palettizer, tmp_path):
    model = models(network)
    small = compressed(palettizer, model, tmp_path / "small.mlpackage", 2)
    np.savez(tmp_path / "x.npz", x=inputs(50))
    def code(*flags):
        done = palettizer("compare", model, small, "--inputs", tmp_path / "x.npz", *flags, check=False)
        return done.returncode, done.stderr
    assert code("--min-snr", 1) == (0, "")
    assert code("--min-snr", 60)[0] == 3 and "--min-snr asks for 60" in code("--min-snr", 60)[1]
    assert code("--min-agreement", 0.05)[0] == 0
    assert code("--min-agreement", 1)[0] == 3 and "arg-max agrees" in code("--min-agreement", 1)[1]
    assert code("--min-agreement", 2)[0] == 2


def test_classifiers_are_compared_by_distribution_and_class(models, palettizer, tmp_path):
    model = models(classifier)
    small = compressed(palettizer, model, tmp_path / "small.mlpackage", 2)
    x = inputs(30)
    np.savez(tmp_path / "x.npz", x=x)
    palettizer("compare", model, small, "--inputs", tmp_path / "x.npz", "--report", tmp_path / "r.json")
    outputs = {output["name"]: output for output in json.loads((tmp_path / "r.json").read_text())["outputs"]}
    ours, theirs = ([Session(str(path)).predict({"x": one[None]}) for one in x] for path in (model, small))
    same = np.mean([a["classLabel"] == b["classLabel"] for a, b in zip(ours, theirs)])
    assert outputs["classLabel"]["agreement"] == pytest.approx(same)
    (scores,) = (output for name, output in outputs.items() if name != "classLabel")
    p, q = ([np.array(list(one[scores["name"]].values()), np.float64) for one in side] for side in (ours, theirs))
    kl = np.mean([(a * np.log(a / b)).sum() for a, b in zip(p, q)])
    assert scores["distribution"] and scores["kl"] == pytest.approx(kl, rel=1e-3)
    assert scores["agreement"] == pytest.approx(same)


def test_models_with_other_outputs(models, palettizer):
    done = palettizer("compare", models(network), models(zoo_graphs.classifier), "--random", check=False)
    assert done.returncode == 1 and 'input "x" has the shape' in done.stderr


def test_verify(models, palettizer, tmp_path):
    np.savez(tmp_path / "x.npz", x=inputs(10))
    out = tmp_path / "small.mlpackage"
    args = ["compress", models(network), "-o", out, "--force", "--nbits", 2, "--verify", tmp_path / "x.npz"]
    said = palettizer(*args, "--min-snr", 1).stdout
    assert "smaller" in said and "10 samples of" in said
    done = palettizer(*args, "--min-snr", 80, check=False)
    assert done.returncode == 3 and out.is_dir(), "the model is there to be looked at"
    palettizer(*args, "--report", tmp_path / "r.html")
    assert '"comparison":{' in (tmp_path / "r.html").read_text()


def test_verify_is_in_the_report(models, palettizer, tmp_path):
    """The report as JSON holds what `compare` says of the same two models, of the same inputs; without --verify it holds nothing of it."""
    model, out, report = models(classifier), tmp_path / "small.mlpackage", tmp_path / "r.json"
    np.savez(tmp_path / "x.npz", x=inputs(10))
    args = ["compress", model, "-o", out, "--force", "--nbits", 3, "--report"]
    palettizer(*args, report, "--verify", tmp_path / "x.npz")
    found = json.loads(report.read_text())
    said = palettizer("compare", model, out, "--inputs", tmp_path / "x.npz", "--layers", "--report", "-").stdout
    assert found["comparison"] == json.loads(said)
    (scores,) = (output for output in found["comparison"]["outputs"] if output["distribution"])
    (label,) = (output for output in found["comparison"]["outputs"] if output["label"])
    assert {"snr_db", "psnr_db", "cosine", "kl", "largest_error", "agreement"} <= scores.keys() and scores["kl"] > 0
    assert label["name"] == "classLabel" and found["comparison"]["samples"] == 10
    assert json.loads(palettizer(*args, "-", "--verify", tmp_path / "x.npz").stdout)["comparison"] == found["comparison"]
    done = palettizer(*args, report, "--verify", tmp_path / "x.npz", "--min-snr", 200, check=False)
    assert done.returncode == 3 and json.loads(report.read_text())["comparison"] == found["comparison"]
    palettizer(*args, report)
    plain = json.loads(report.read_text())
    assert "comparison" not in plain and plain.keys() == found.keys() - {"comparison"}


def jacobians(x):
    """The gradients of every output of a sample with respect to the weights: [outputs, *shape] each."""
    w1, w2 = (torch.tensor(w, dtype=torch.float64) for w in (W1, W2))
    one = torch.tensor(x, dtype=torch.float64)
    return torch.func.jacrev(lambda a, b: torch.tanh(one @ a.T) @ b.T, argnums=(0, 1))(w1, w2)


def test_probes_are_the_diagonal_of_gauss_newton(models, palettizer, tmp_path):
    x = inputs(4)
    np.savez(tmp_path / "x.npz", x=x)
    out = tmp_path / "s.safetensors"
    palettizer("sensitivity", models(network), "--inputs", tmp_path / "x.npz", "-o", out, "--probes", 400)
    found = load_file(out)
    assert {name: value.shape for name, value in found.items()} == {"first_w": W1.shape, "second_w": W2.shape}
    each = [jacobians(one) for one in x]
    for name, at in [("first_w", 0), ("second_w", 1)]:
        wanted = torch.stack([(one[at] ** 2).sum(0) for one in each]).mean(0).numpy()
        assert np.corrcoef(found[name].ravel(), wanted.ravel())[0, 1] > 0.98
        assert found[name].sum() == pytest.approx(wanted.sum(), rel=0.05)
        np.testing.assert_allclose(found[name], wanted, rtol=0.5, atol=0.02 * wanted.max())


def test_probes_of_a_pipeline(models, palettizer, tmp_path):
    """y = B A x: how far the outputs move with A is Σ B² of a column times x², and with B (A x)²."""
    x = RNG.normal(size=(1, 4, 64)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    model, out = models(zoo_graphs.pipeline), tmp_path / "s.safetensors"
    palettizer("sensitivity", model, "--inputs", tmp_path / "x.npz", "-o", out, "--probes", 400)
    found = load_file(out)
    a, b = (_native.Model.open(model).weight_values(name)[2].view(np.float32) for name in ("first_w", "second_w"))
    a, b, x = a.reshape(80, 64).astype(np.float64), b.reshape(48, 80).astype(np.float64), x[0].astype(np.float64)
    wanted = {"first_w": np.outer((b**2).sum(0), (x**2).sum(0)), "second_w": np.tile(((x @ a.T) ** 2).sum(0), (48, 1))}
    assert {name: value.shape for name, value in found.items()} == {"first_w": (80, 64), "second_w": (48, 80)}
    for name, value in wanted.items():
        assert np.corrcoef(found[name].ravel(), value.ravel())[0, 1] > 0.95
        assert found[name].sum() == pytest.approx(value.sum(), rel=0.05)


def test_drawn_labels_are_the_diagonal_of_fisher(models, palettizer, tmp_path):
    x = inputs(3)
    np.savez(tmp_path / "x.npz", x=x)
    wanted = {}
    for name, at in [("first_w", 0), ("second_w", 1)]:
        total = 0
        for one in x:
            p = torch.softmax(forward(torch.tensor(one).double()), -1)
            gradients = (torch.eye(40).double() - p) @ jacobians(one)[at].reshape(40, -1)  # of ln p(c), for each c
            total = total + (p[:, None] * gradients**2).sum(0)
        wanted[name] = (total / len(x)).numpy()
    for builder in (network, classifier):  # logits, and probabilities
        out = tmp_path / f"{builder.__name__}.safetensors"
        palettizer("sensitivity", models(builder), "--inputs", tmp_path / "x.npz", "-o", out, "--loss", "nll", "--probes", 500)
        for name, value in load_file(out).items():
            assert np.corrcoef(value.ravel(), wanted[name])[0, 1] > 0.9
            assert value.sum() == pytest.approx(wanted[name].sum(), rel=0.15)


def test_true_labels(models, palettizer, tmp_path):
    x, labels = inputs(5), [3, 0, 39, 7, 7]
    np.savez(tmp_path / "x.npz", x=x)
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    total = 0
    for one, label in zip(x, labels):
        p = torch.softmax(forward(torch.tensor(one).double()), -1)
        total = total + ((torch.eye(40).double()[label] - p) @ jacobians(one)[0].reshape(40, -1)) ** 2
    for name in ("labels.npy", "labels.txt"):
        palettizer("sensitivity", models(network), "--inputs", tmp_path / "x.npz", "-o", tmp_path / "s.safetensors", "--force",
                   "--loss", "nll", "--labels", tmp_path / name)
        found = load_file(tmp_path / "s.safetensors")["first_w"]
        np.testing.assert_allclose(found.ravel(), (total / 5).numpy(), rtol=1e-3, atol=1e-6)


def test_sensitivities_need_what_they_need(models, refuses, tmp_path):
    np.savez(tmp_path / "x.npz", x=inputs(2))
    (tmp_path / "few.txt").write_text("1\n")
    (tmp_path / "large.txt").write_text("1\n40\n")
    (tmp_path / "words.txt").write_text("one\n")
    base = ["sensitivity", models(network), "-o", tmp_path / "s.safetensors"]
    x, nll = ["--inputs", tmp_path / "x.npz"], ["--loss", "nll", "--labels"]
    for words, flags in [
        (["Give --inputs"], []), (["--labels is for --loss nll"], [*x, "--labels", tmp_path / "few.txt"]),
        (["more rows than there are labels"], [*x, *nll, tmp_path / "few.txt"]),
        (["has 40 classes", "is 40"], [*x, *nll, tmp_path / "large.txt"]),
        (["line 1 is \"one\""], [*x, *nll, tmp_path / "words.txt"]),
        (["\"other\" has no classes"], [*x, "--loss", "nll", "--of", "other"]),
        (["--of is for --loss nll"], [*x, "--of", "logits"]),
    ]:
        refuses(words, *base, *flags)
    refuses(["must end in .safetensors"], "sensitivity", models(network), *x, "-o", tmp_path / "s.npz")


def test_from_a_model_to_its_sensitive_palette(palettizer, tmp_path):
    """Two commands, on the model that comes with the command: the same bits lose less where it matters."""
    from sklearn.datasets import load_digits

    palettizer("demo", "--save", tmp_path / "digits")
    model = tmp_path / "digits/digits.mlpackage"
    images = (load_digits().images[:64] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    np.savez(tmp_path / "x.npz", image=images)
    found = tmp_path / "s.safetensors"
    palettizer("sensitivity", model, "--inputs", tmp_path / "x.npz", "-o", found, "--loss", "nll", "--weight-threshold", 0)
    plain = compressed(palettizer, model, tmp_path / "plain.mlpackage", 2)
    small = compressed(palettizer, model, tmp_path / "sensitive.mlpackage", 2, "--sensitivity", found)
    figures = []
    for other in (plain, small):
        report = tmp_path / f"{other.stem}.json"
        palettizer("compare", model, other, "--inputs", tmp_path / "x.npz", "--report", report)
        (output,) = json.loads(report.read_text())["outputs"]
        figures.append(output["kl"])
    assert figures[1] < figures[0]


def tones(count):
    """Frames of sound as CREPE takes them: six harmonics of a random pitch, a little noise, mean 0, deviation 1."""
    rng, t = np.random.default_rng(count), np.arange(1024) / 16000
    frames = []
    for pitch in np.exp(rng.uniform(np.log(60), np.log(1000), count)):
        frame = sum(rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 2 * np.pi)) for k in range(1, 7))
        frame = frame + 0.02 * rng.normal(size=1024)
        frames.append((frame - frame.mean()) / frame.std())
    return np.float32(frames)[:, None]


def test_sensitivities_keep_the_pitch(real_models, palettizer, tmp_path):
    """CREPE tiny at 4 bits, as the guide has it: with sensitivities more pitches stay the same, and with some bits more yet more."""
    for name, count in [("calibration.npz", 64), ("validation.npz", 256)]:
        np.savez(tmp_path / name, frames=tones(count))
    model, found = real_models["crepe-tiny"], tmp_path / "s.safetensors"
    palettizer("sensitivity", model, "--inputs", tmp_path / "calibration.npz", "-o", found)
    agreement, size = [], []
    for flags in [(), ("--sensitivity", found), ("--sensitivity", found, "--op-name", "model_conv[3-5]_.*=6")]:
        palettizer("compress", model, "-o", tmp_path / "small.mlpackage", "--force", "--nbits", 4, *flags, "--report", tmp_path / "r.json",
                   "--verify", tmp_path / "validation.npz", "--min-agreement", 0.8)
        report = json.loads((tmp_path / "r.json").read_text())
        (output,) = report["comparison"]["outputs"]
        agreement.append(output["agreement"])
        size.append(report["bytes_after"])
    assert agreement[0] + 0.01 < agreement[1] < agreement[2], agreement
    assert size[0] == size[1] and size[2] < 1.1 * size[0]
