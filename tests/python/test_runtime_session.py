"""`Session.predict` on models as the peer builds them: kinds of inputs and outputs, functions, pipelines, states, limits."""

import sys
import types as modules

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol, types
from coremltools.proto import FeatureTypes_pb2, Model_pb2
from PIL import Image

import palettizer.coreml as cto
import zoo_graphs
from pages import ROOT
from palettizer.runtime import Session
from zoo import convert

RNG = np.random.default_rng(7)
COLORS = FeatureTypes_pb2.ImageFeatureType


def program(body, *specs, target=ct.target.iOS18, **options):
    """The model of `body(x, y, …)`."""
    names = ", ".join("xyz"[: len(specs)])
    scope = {"body": body}
    exec(f"def main({names}): return body({names})", scope)  # noqa: S102
    specs = [mb.TensorSpec(spec) if isinstance(spec, tuple) else spec for spec in specs]
    return convert(mb.program(input_specs=specs, opset_version=target)(scope["main"]), target.name, **options)


def edited(mlmodel, edit):
    """The model after `edit(description)`."""
    spec = mlmodel.get_spec()
    edit(spec.description)
    return ct.models.MLModel(spec, weights_dir=mlmodel.weights_dir, skip_model_load=True)


def as_image(feature, color, width, height):
    feature.type.imageType.colorSpace = getattr(COLORS, color)
    feature.type.imageType.width, feature.type.imageType.height = width, height


def picture(mode, width, height):
    channels = {"RGB": (3,), "RGBA": (4,), "L": (), "F": ()}[mode]
    values = RNG.integers(0, 256, (height, width, *channels)).astype(np.uint8)
    return Image.fromarray(values.astype(np.float32) if mode == "F" else values)


def images(color_in, color_out, width=5, height=3):
    """A program that gives its image back, and its first output as floats."""
    channels = 3 if color_in in ("RGB", "BGR") else 1

    def edit(description):
        as_image(description.input[0], color_in, width, height)
        as_image(description.output[0], color_out, width, height)
    body = lambda x: [mb.relu(x=x, name="image"), mb.relu(x=x, name="floats")]  # noqa: E731
    return Session(edited(program(body, (1, channels, height, width)), edit))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_colored_images(color, mode):
    given = picture(mode, 5, 3)
    found = images(color, color).predict({"x": given})
    planes = np.asarray(given.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(found["floats"], planes[None, :: 1 if color == "RGB" else -1].astype(np.float32))
    assert found["image"].mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found["image"]), np.asarray(given.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "F"])
@pytest.mark.parametrize("color", ["GRAYSCALE", "GRAYSCALE_FLOAT16"])
def test_gray_images(color, mode):
    given = picture(mode, 4, 6)
    found = images(color, color, 4, 6).predict({"x": given})
    wanted = given.convert({"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}[color])
    values = np.asarray(wanted).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found["floats"], values[None, None])
    assert found["image"].mode == wanted.mode
    np.testing.assert_array_equal(np.asarray(found["image"], np.float32), values)


def test_images_as_arrays(monkeypatch):
    given = np.asarray(picture("RGB", 5, 3))
    session = images("BGR", "RGB")
    monkeypatch.setitem(sys.modules, "PIL", modules.ModuleType("PIL"))  # nothing can be imported from it
    found = session.predict({"x": given})
    np.testing.assert_array_equal(found["image"], given[..., ::-1])
    floats = given.transpose(2, 0, 1)[None, ::-1].astype(np.float32) + 0.25  # as the program sees it
    np.testing.assert_array_equal(session.predict({"x": floats})["floats"], floats)
    np.testing.assert_array_equal(session.predict({"x": floats})["image"], given[..., ::-1])


def test_pixels_are_clamped_and_rounded():
    session = images("RGB", "RGB", 2, 1)
    given = np.array([0.4, 0.6, 254.6, 1e6, -4, 255.4], np.float32).reshape(1, 3, 1, 2)
    found = np.asarray(session.predict({"x": given})["image"])
    np.testing.assert_array_equal(found, [[[0, 255, 0], [1, 255, 255]]])


def test_sizes_of_images():
    with pytest.raises(ValueError, match='input "x" is an image of 3×5 pixels; the model expects 5×3'):
        images("RGB", "RGB").predict({"x": picture("RGB", 3, 5)})
    with pytest.raises(TypeError, match="expected an image of PIL"):
        images("RGB", "RGB").predict({"x": np.zeros((3, 5), np.int32)})


def flexible_images(edit):
    height, width = get_new_symbol(), get_new_symbol()
    mlmodel = program(lambda x: mb.relu(x=x, name="y"), mb.TensorSpec((1, 3, height, width)),
                      inputs=[ct.TensorType("x", (1, 3, ct.RangeDim(1, 64, default=4), ct.RangeDim(1, 64, default=4)))])

    def described(description):
        as_image(description.input[0], "RGB", 4, 4)
        edit(description.input[0].type.imageType)
    return Session(edited(mlmodel, described))


def test_images_of_several_sizes():
    def listed(image):
        for width, height in [(4, 4), (6, 2)]:
            image.enumeratedSizes.sizes.add(width=width, height=height)

    def ranged(image):
        bounds = image.imageSizeRange
        bounds.widthRange.lowerBound, bounds.widthRange.upperBound = 2, 8
        bounds.heightRange.lowerBound, bounds.heightRange.upperBound = 4, -1
    one, many = flexible_images(listed), flexible_images(ranged)
    assert one.predict({"x": picture("RGB", 6, 2)})["y"].shape == (1, 3, 2, 6)
    assert many.predict({"x": picture("RGB", 2, 33)})["y"].shape == (1, 3, 33, 2)
    with pytest.raises(ValueError, match="is an image of 2×6 pixels; the model expects 4×4 or 6×2"):
        one.predict({"x": picture("RGB", 2, 6)})
    with pytest.raises(ValueError, match="the model expects 2 to 8 × 4 or more"):
        many.predict({"x": picture("RGB", 9, 5)})


def test_flexible_shapes():
    def body(x):
        return mb.relu(x=x, name="y")
    spec = mb.TensorSpec((get_new_symbol(), 3))
    ranged = Session(program(body, spec, inputs=[ct.TensorType("x", (ct.RangeDim(2, 8, default=4), 3))]))
    spec = mb.TensorSpec((get_new_symbol(), 3))
    shapes = ct.EnumeratedShapes([(2, 3), (5, 3)], default=(2, 3))
    listed = Session(program(body, spec, inputs=[ct.TensorType("x", shapes)]))
    for session, sizes, bad, allowed in [
        (ranged, (2, 4, 8), (1, 9), r"\[2 to 8, 3\]"), (listed, (2, 5), (3, 4), r"\[2, 3\] or \[5, 3\]"),
    ]:
        for size in sizes:
            x = RNG.normal(size=(size, 3)).astype(np.float32)
            np.testing.assert_array_equal(session.predict({"x": x})["y"], np.maximum(x, 0))
        for size in bad:
            with pytest.raises(ValueError, match=rf"has the shape \[{size}, 3\]; the model expects {allowed}"):
                session.predict({"x": np.zeros((size, 3), np.float32)})
        with pytest.raises(ValueError, match=r"has the shape \[2, 4\]"):
            session.predict({"x": np.zeros((2, 4), np.float32)})


def test_optional_inputs():
    def edit(description):
        x, y = description.input
        x.type.isOptional, x.type.multiArrayType.floatDefaultValue = True, -2.5
        y.type.isOptional, y.type.multiArrayType.intDefaultValue = True, 3
    body = lambda x, y: [mb.tanh(x=x, name="a"), mb.identity(x=y, name="b")]  # noqa: E731
    mlmodel = program(body, (2, 3), mb.TensorSpec((2,), dtype=types.int32))
    session = Session(edited(mlmodel, edit))
    found = session.predict({})
    np.testing.assert_allclose(found["a"], np.tanh(np.full((2, 3), -2.5)), rtol=1e-6)
    np.testing.assert_array_equal(found["b"], [3, 3])
    np.testing.assert_array_equal(session.predict({"y": [1, 2]})["b"], [1, 2])
    with pytest.raises(ValueError, match='input "x" is missing'):
        Session(mlmodel).predict({"y": [1, 2]})


def test_types_of_inputs():
    mlmodel = program(lambda x, y: [mb.relu(x=x, name="a"), mb.identity(x=y, name="b")],
                      mb.TensorSpec((3,), dtype=types.fp16), mb.TensorSpec((1,), dtype=types.int32))
    session = Session(mlmodel)
    found = session.predict({"x": [1, 70000, 1 + 2**-11], "y": 7.0})
    np.testing.assert_array_equal(found["a"], np.array([1, np.inf, 1], np.float16))
    assert found["a"].dtype == np.float16 and found["b"].dtype == np.int32 and found["b"] == [7]
    bad = [
        ({"x": [1, 2, 3], "y": 7.5}, "is of fp32; the model expects int32"),
        ({"x": [1, 2, 3], "y": [2**40]}, "expected 32 bits"),
        ({"x": ["a", "b", "c"], "y": [1]}, "is of string; the model expects fp16"),
        ({"x": [1, 2], "y": [1]}, r"has the shape \[2\]; the model expects \[3\]"),
        ({"x": [1, 2, 3]}, 'input "y" is missing'),
        ({"x": [1, 2, 3], "y": [1], "z": [1]}, r'input "z" is not one of the model\'s: x, y'),
    ]
    for given, message in bad:
        with pytest.raises(ValueError, match=message):
            session.predict(given)
    with pytest.raises(TypeError, match="expected numbers"):
        session.predict({"x": [None] * 3, "y": [1]})


def test_several_at_once():
    session = Session(program(lambda x: mb.relu(x=x, name="y"), (2,)))
    found = session.predict([{"x": [-1, 1]}, {"x": [2, -3]}])
    assert [one["y"].tolist() for one in found] == [[0, 1], [2, 0]]
    with pytest.raises(ValueError, match="not with a list"):
        session.predict([{"x": [1, 2]}], session.make_state())


def accumulator():
    """Adds up what it is given."""
    def body(x, y):
        total = mb.add(x=mb.read_state(input=y), y=x)
        return mb.identity(x=mb.coreml_update_state(state=y, value=total), name="total")
    return program(body, mb.TensorSpec((2,), dtype=types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16))


def test_states():
    session = Session(accumulator())
    state = session.make_state()
    for _ in range(3):
        found = session.predict({"x": [1, 2]}, state)
    assert found["total"].tolist() == [3, 6]
    assert state.read_state("y").tolist() == [3, 6] and state.read_state("y").dtype == np.float16
    assert session.predict({"x": [1, 2]})["total"].tolist() == [1, 2]  # from zeros
    state.write_state("y", [10, 20])
    assert session.predict({"x": [1, 2]}, state)["total"].tolist() == [11, 22]
    for name, value, message in [("z", [1, 2], "is none of the states: y"), ("y", [1], r"has the shape \[1\]; the state has \[2\]"),
                                 ("y", ["a", "b"], "is of string; the state is of fp16")]:
        with pytest.raises(ValueError, match=message):
            state.write_state(name, value)
    with pytest.raises(ValueError, match="no state is called"):
        state.read_state("z")


def linear(x, *weights):
    for weight in weights:
        x = x @ weight.T.astype(np.float64)
    return x


def test_several_functions(models):
    path = models(zoo_graphs.multifunction)
    weights = {name: cto_weight(path, name) for name in ("base_w", "left_w", "right_w")}
    x = RNG.normal(size=(4, 64)).astype(np.float32)
    for name, asked in [("left", None), ("left", "left"), ("right", "right")]:
        (found,) = Session(path, function_name=asked).predict({"x": x}).values()
        np.testing.assert_allclose(found, linear(x, weights["base_w"], weights[f"{name}_w"]), rtol=1e-4, atol=1e-4)
    mlmodel = ct.models.MLModel(str(path), function_name="right", skip_model_load=True)
    (found,) = Session(mlmodel).predict({"x": x}).values()
    np.testing.assert_allclose(found, linear(x, weights["base_w"], weights["right_w"]), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match='no function is called "middle"; the model has: left, right'):
        Session(path, function_name="middle")


def cto_weight(path, name):
    from palettizer import _native

    dtype, shape, values = _native.Model.open(path).weight_values(name)
    return values.view({"fp16": np.float16, "fp32": np.float32}[dtype]).reshape(shape)


def test_pipelines(models):
    path = models(zoo_graphs.pipeline)
    x = RNG.normal(size=(4, 64)).astype(np.float32)
    session = Session(path)
    found = session.predict({"x": x})
    assert list(found) == ["second"]
    wanted = linear(x, cto_weight(path, "first_w"), cto_weight(path, "second_w"))
    np.testing.assert_allclose(found["second"], wanted, rtol=1e-4, atol=1e-4)
    for given, message in [({}, 'input "x" is missing'), ({"x": x, "z": x}, r"is not one of the model's: x")]:
        with pytest.raises(ValueError, match=message):
            session.predict(given)
    with pytest.raises(ValueError, match="no function is called"):
        Session(path, function_name="second")
    with pytest.raises(ValueError, match="did not end within 1 operations"):
        Session(path, max_steps=1).predict({"x": x})
    assert list(Session(path, max_steps=2).predict({"x": x})) == ["second"]


def pipeline_of(*mlmodels):
    """A pipeline without weight files."""
    spec = Model_pb2.Model(specificationVersion=9)
    for mlmodel in mlmodels:
        spec.pipeline.models.add().CopyFrom(mlmodel.get_spec() if hasattr(mlmodel, "get_spec") else mlmodel)
    spec.description.input.extend(spec.pipeline.models[0].description.input)
    spec.description.output.extend(spec.pipeline.models[-1].description.output)
    return spec


def two_stages():
    """A pipeline whose second stage takes the output of the first and the pipeline's own input."""
    weights = {"first_w": RNG.normal(size=(24, 16)), "second_w": RNG.normal(size=(16, 24)) / 5}
    first, second = (weight.astype(np.float32) for weight in weights.values())

    @mb.program(input_specs=[mb.TensorSpec((4, 16))], opset_version=ct.target.iOS18)
    def begin(x):
        return mb.tanh(x=mb.linear(x=x, weight=mb.const(val=first, name="first_w")), name="middle")

    @mb.program(input_specs=[mb.TensorSpec((4, 24)), mb.TensorSpec((4, 16))], opset_version=ct.target.iOS18)
    def end(middle, x):
        return mb.mul(x=mb.linear(x=middle, weight=mb.const(val=second, name="second_w")), y=x, name="y")

    made = ct.utils.make_pipeline(convert(begin, "iOS18"), convert(end, "iOS18"))
    return made, (first, second)


def test_gradients_through_stages():
    made, weights = two_stages()
    x = RNG.normal(size=(4, 16)).astype(np.float32)
    given, first, second = (torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (x, *weights))
    y = (torch.tanh(given @ first.T) @ second.T) * given
    session, sought = Session(made), ["x", "first_w", "second_w"]
    factors = RNG.normal(size=(4, 16)).astype(np.float32)
    losses = {"projection": (y * torch.tensor(factors)).sum(), "cross_entropy": torch.nn.functional.cross_entropy(y, torch.arange(4))}
    for name, loss in losses.items():
        wanted = torch.autograd.grad(loss, [given, first, second], retain_graph=True)
        found = session.grad({"x": x}, {"y": factors} if name == "projection" else name, sought, output="y", labels=range(4))
        assert found.loss == pytest.approx(float(loss.detach()), rel=1e-5) and sorted(found.gradients) == sorted(sought)
        np.testing.assert_allclose(found.outputs["y"], y.detach().numpy(), rtol=1e-4, atol=1e-5)
        for one, gradient in zip(sought, wanted):
            np.testing.assert_allclose(found.gradients[one], gradient.numpy(), rtol=1e-3, atol=1e-5)
            alone = session.grad({"x": x}, {"y": factors} if name == "projection" else name, one, output="y", labels=range(4))
            np.testing.assert_array_equal(alone.gradients[one], found.gradients[one])
    with pytest.raises(ValueError, match='"middle" is neither an input nor a constant'):
        session.grad({"x": x}, {"y": factors}, "middle")
    with pytest.raises(ValueError, match="did not end within 3 operations"):
        Session(made, max_steps=3).grad({"x": x}, {"y": factors}, "x")


def scaled(*factors):
    """Multiplies by a constant called w."""
    return program(lambda x: mb.mul(x=x, y=mb.const(val=np.float32(factors), name="w"), name="y"), (len(factors),))


def test_gradients_through_a_pipeline_in_a_pipeline():
    """Of constants that share a name, that of the first stage counts."""
    stages = [scaled(2, 3), scaled(5, 7), program(lambda x: mb.square(x=x, name="y"), (2,))]
    specs = []
    for at, stage in enumerate(stages):
        spec = stage.get_spec()
        ct.utils.rename_feature(spec, "y", f"y{at}")
        if at:
            ct.utils.rename_feature(spec, "x", f"y{at - 1}")
        specs.append(spec)
    made = pipeline_of(specs[0], pipeline_of(*specs[1:]))
    found = Session(ct.models.MLModel(made, skip_model_load=True)).grad({"x": np.float32([1, -1])}, {"y2": [1, 10]}, ["x", "w"])
    assert found.outputs["y2"].tolist() == [100, 441] and found.loss == 4510
    assert found.gradients["x"].tolist() == [200, -8820]  # 2 x (2·5)² and 10 times 2 x (3·7)²
    assert found.gradients["w"].tolist() == [100, 2940]


def test_images_between_stages():
    first = edited(program(lambda x: mb.tanh(x=x, name="middle"), (1, 3, 1, 1)),
                   lambda description: as_image(description.output[0], "RGB", 1, 1))
    second = program(lambda x: mb.relu(x=x, name="y"), (1, 3, 1, 1)).get_spec()
    ct.utils.rename_feature(second, "x", "middle")
    as_image(second.description.input[0], "BGR", 1, 1)
    session = Session(ct.models.MLModel(pipeline_of(first, second), skip_model_load=True))
    found = session.predict({"x": np.array([3, 0, -1], np.float32).reshape(1, 3, 1, 1)})
    assert found["y"].reshape(-1).tolist() == [0, 0, 1]  # rounded to pixels, blue first
    with pytest.raises(ValueError, match='output "middle" is an image between two stages of the pipeline, which passes no gradient on'):
        session.grad({"x": np.zeros((1, 3, 1, 1), np.float32)}, {"y": [1, 1, 1]}, "x")


def test_stages_that_are_no_programs():
    other = Model_pb2.Model(specificationVersion=9)
    other.scaler.shiftValue.append(1)
    first = program(lambda x: mb.relu(x=x, name="y"), (2,))
    mlmodel = ct.models.MLModel(pipeline_of(first, other), skip_model_load=True)
    with pytest.raises(ValueError, match="stage 1 of the pipeline is a scaler, which cannot be run here; expected ML Programs"):
        Session(mlmodel)


def test_branches_and_loops():
    def branches(x, y):
        chosen = mb.squeeze(x=mb.greater(x=y, y=0.0))
        return mb.cond(pred=chosen, _true_fn=lambda: mb.relu(x=x), _false_fn=lambda: mb.tanh(x=x), name="out")
    session = Session(program(branches, (3,), (1,)))
    x = np.array([-1, 0.5, 2], np.float32)
    np.testing.assert_array_equal(session.predict({"x": x, "y": [1.0]})["out"], np.maximum(x, 0))
    np.testing.assert_allclose(session.predict({"x": x, "y": [-1.0]})["out"], np.tanh(x), rtol=1e-6)

    def loop(x, y):
        return mb.while_loop(_cond=lambda i, v: mb.squeeze(x=mb.less(x=i, y=y)), _body=lambda i, v: (mb.add(x=i, y=1.0), mb.add(x=v, y=v)),
                             loop_vars=(mb.const(val=np.zeros(1, np.float32)), x), name="out")[1]
    session = Session(program(loop, (3,), (1,)))
    np.testing.assert_array_equal(session.predict({"x": x, "y": [5.0]})["out_1"], 32 * x)
    np.testing.assert_array_equal(session.predict({"x": x, "y": [0.0]})["out_1"], x)


def endless():
    def body(x):
        return mb.while_loop(_cond=lambda v: mb.squeeze(x=mb.less(x=v, y=1.0)), _body=lambda v: (mb.tanh(x=v),), loop_vars=(x,), name="y")
    return program(body, (1,))


def test_limits():
    with pytest.raises(ValueError, match=r"did not end within 1000 operations.*--max-steps"):
        Session(endless(), max_steps=1000).predict({"x": [0.5]})
    mlmodel = program(lambda x: mb.tile(x=x, reps=[1 << 20], name="y"), (64,))
    with pytest.raises(ValueError, match=r'tile "y" asks for 268435456 bytes where .* of 1000000 are in use; raise max_memory'):
        Session(mlmodel, max_memory=1_000_000).predict({"x": np.zeros(64, np.float32)})


def test_operations_that_are_not_known():
    mlmodel = program(lambda x: mb.tanh(x=mb.relu(x=x), name="y"), (2,))
    spec = mlmodel.get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    for op in block.operations:
        op.type = op.type.replace("tanh", "zeta").replace("relu", "alpha")
    mlmodel = ct.models.MLModel(spec, weights_dir=mlmodel.weights_dir, skip_model_load=True)
    with pytest.raises(ValueError, match="function \"main\" has operations that cannot be run here: alpha, zeta; docs/runtime.md"):
        Session(mlmodel)


def test_classifiers(models):
    path = models(zoo_graphs.classifier)
    x = RNG.normal(size=(1, 96)).astype(np.float32)
    found = Session(path).predict({"x": x})
    logits = linear(x, cto_weight(path, "class_w"))[0]
    wanted = np.exp(logits - logits.max())
    wanted /= wanted.sum()
    assert found["classLabel"] == f"label {wanted.argmax()}"
    (probabilities,) = (value for value in found.values() if isinstance(value, dict))
    assert list(probabilities) == [f"label {i}" for i in range(48)]
    np.testing.assert_allclose(list(probabilities.values()), wanted, rtol=1e-4, atol=1e-7)


def test_precision():
    def body(x):
        return mb.cast(x=mb.tanh(x=mb.tanh(x=mb.cast(x=x, dtype="fp16"))), dtype="fp32", name="y")
    mlmodel = program(body, (64,))
    x = RNG.normal(size=64).astype(np.float32)
    half = np.tanh(np.tanh(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(Session(mlmodel).predict({"x": x})["y"], half.astype(np.float32))
    fast = Session(mlmodel, precision="fast").predict({"x": x})["y"]
    np.testing.assert_allclose(fast, np.tanh(np.tanh(x.astype(np.float16).astype(np.float32))), rtol=1e-6)
    with pytest.raises(ValueError, match='allowed: "exact" and "fast"'):
        Session(mlmodel, precision="best")


def test_threads_do_not_matter():
    mlmodel = program(lambda x: mb.tanh(x=x, name="y"), (1 << 18,))
    x = RNG.normal(size=1 << 18).astype(np.float32)
    one, many = (Session(mlmodel, threads=threads).predict({"x": x})["y"] for threads in (1, 3))
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("options", [{"nbits": 4}, {"nbits": 3, "granularity": "per_grouped_channel", "group_size": 2},
                                     {"nbits": 6, "enable_per_channel_scale": True}, {"nbits": 4, "cluster_dim": 2}, None])
def test_weights_are_expanded_in_memory_that_others_had(dtype, options):
    # large ones after small ones and small after large, one of them used twice, and one that goes on as a view
    sizes = [(300, 40), (60, 300), (900, 60), (44, 900), (300, 44)]
    weights = [(RNG.normal(size=size) * 0.2).astype(dtype) for size in sizes]

    def body(x):
        for at, weight in enumerate(weights):
            x = mb.linear(x=x, weight=mb.const(val=weight, name=f"w{at}"))
        shared = mb.const(val=RNG.normal(size=(300, 300)).astype(dtype), name="shared")
        view = mb.reshape(x=shared, shape=[30, 3000])
        x = mb.matmul(x=mb.matmul(x=x, y=shared), y=shared)
        return mb.concat(values=[x, mb.matmul(x=mb.slice_by_size(x=x, begin=[0, 0], size=[5, 30]), y=view)], axis=1)
    model = program(body, mb.TensorSpec((5, 40), dtype=types.fp16 if dtype == np.float16 else types.fp32))
    if options:
        config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(weight_threshold=0, **options))
        model = cto.palettize_weights(model, config)
    plain = cto.decompress_weights(model) if options else model
    x = {"x": RNG.normal(size=(5, 40)).astype(np.float32)}
    session = Session(model)
    found = [next(iter(session.predict(x).values())) for _ in range(3)]
    kept = Session(plain, keep_constants=True)
    ((name, wanted),) = kept.predict(x).items()
    assert all(np.array_equal(one, wanted) for one in found)
    # and for gradients once more
    names = ["x", *cto.get_weights_metadata(plain, weight_threshold=4096)]
    assert len(names) == 1 + len(weights) + 1
    found, wanted = (one.grad(x, {name: np.cos(np.arange(wanted.size))}, names).gradients for one in (session, kept))
    assert all(np.array_equal(found[one], wanted[one]) and wanted[one].any() for one in names)


def test_outputs_share_no_memory():
    constant = RNG.normal(size=(3, 2000)).astype(np.float32)

    def body(x):
        y = mb.tanh(x=x)
        return y, mb.reshape(x=y, shape=[6000]), mb.add(x=x, y=constant), mb.reshape(x=mb.const(val=constant), shape=[6000])
    x = {"x": RNG.normal(size=(3, 2000)).astype(np.float32)}
    session = Session(program(body, (3, 2000)), keep_constants=True)
    wanted = session.predict(x)
    for name in wanted:
        found = session.predict(x)
        found[name][...] = 7
        for other in wanted.keys() - {name}:
            np.testing.assert_array_equal(found[other], wanted[other])
    np.testing.assert_equal(session.predict(x), wanted)


@pytest.mark.parametrize("damage", [
    lambda image: setattr(image, "colorSpace", 0), lambda image: setattr(image, "width", -5),
])
def test_descriptions_that_make_no_sense(damage):
    def edit(description):
        as_image(description.input[0], "RGB", 4, 4)
        damage(description.input[0].type.imageType)
    with pytest.raises(ValueError, match='"x" is described wrongly'):
        Session(edited(program(lambda x: mb.relu(x=x), (1, 3, 4, 4)), edit))


def test_defaults_and_states_larger_than_any_memory():
    def edit(description):
        description.input[0].type.isOptional = True
        description.input[0].type.multiArrayType.shape[:] = [1 << 40, 1 << 40]
    with pytest.raises(ValueError, match='input "x" is missing'):
        Session(edited(program(lambda x: mb.relu(x=x), (2, 2)), edit)).predict({})
    mlmodel = accumulator()
    spec = mlmodel.get_spec()
    function = spec.mlProgram.functions["main"]
    function.inputs[1].type.stateType.wrappedType.tensorType.dimensions[0].constant.size = 1 << 62
    with pytest.raises(ValueError, match="which no memory has room for"):
        Session(ct.models.MLModel(spec, weights_dir=mlmodel.weights_dir, skip_model_load=True)).make_state()


def test_the_page_lists_every_operation_and_none_of_the_peers_is_missing():
    sys.path.insert(0, str(ROOT / "scripts"))
    import runtime_ops
    text = (ROOT / "docs/runtime.md").read_text(encoding="utf-8")
    assert text[text.index(runtime_ops.HEADING):] == runtime_ops.section(), "run scripts/runtime_ops.py"
    assert all(line.endswith("|  |") for line in runtime_ops.table()[2:]), "an operation does not run"
