"""Models whose shape, not whose ops, is what matters: sharing, nesting, several functions, pipelines, state."""

import json
import tempfile
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol, types

from zoo import DTYPES, TARGETS, convert, random


def _spec(*shapes, dtype="fp32"):
    return [mb.TensorSpec(shape, dtype=DTYPES[dtype][1]) for shape in shapes]


def _const(name, shape, dtype="fp32", values="tails"):
    return mb.const(val=random(name, shape, values).astype(DTYPES[dtype][0]), name=name)


def opset(target, dtype="fp32"):
    """A small net in the given opset; iOS15 is CoreML5, iOS26 is CoreML9."""
    @mb.program(input_specs=_spec((1, 16, 8, 8)), opset_version=TARGETS[target])
    def program(x):
        x = mb.conv(x=x, weight=_const("conv_w", (32, 16, 3, 3)), bias=_const("conv_b", (32,)), name="conv")
        x = mb.relu(x=x, name="relu")
        x = mb.reshape(x=x, shape=[1, 32 * 36], name="flat")
        return mb.linear(x=x, weight=_const("linear_w", (24, 32 * 36)), name="linear")
    return convert(program, target)


def mixed():
    """fp16 and fp32 weights in one program, with casts between them."""
    @mb.program(input_specs=_spec((4, 96)), opset_version=ct.target.iOS16)
    def program(x):
        x = mb.linear(x=x, weight=_const("wide", (80, 96), "fp32"), name="first")
        x = mb.cast(x=x, dtype="fp16", name="narrow")
        x = mb.linear(x=x, weight=_const("half", (64, 80), "fp16"), name="second")
        return mb.cast(x=x, dtype="fp32", name="out")
    return convert(program, "iOS16")


def shared(target="iOS18"):
    """One constant, three consumers that agree on its axes."""
    @mb.program(input_specs=_spec((4, 64)), opset_version=TARGETS[target])
    def program(x):
        w = _const("shared_w", (64, 64))
        for i in range(3):
            x = mb.relu(x=mb.linear(x=x, weight=w, name=f"linear{i}"), name=f"relu{i}")
        return x
    return convert(program, target)


def disagreeing():
    """One constant, a `linear` (output axis 0) and a `matmul` (output axis 1)."""
    @mb.program(input_specs=_spec((4, 64)), opset_version=ct.target.iOS18)
    def program(x):
        w = _const("both_w", (64, 64))
        x = mb.linear(x=x, weight=w, name="linear")
        return mb.matmul(x=x, y=w, name="matmul")
    return convert(program, "iOS18")


def nested_cond():
    @mb.program(input_specs=_spec((4, 64), (1,)), opset_version=ct.target.iOS18)
    def program(x, flag):
        outside = _const("outside_w", (64, 64))
        choose = mb.squeeze(x=mb.greater(x=flag, y=0.0), name="choose")
        return mb.cond(
            pred=choose,
            _true_fn=lambda: mb.linear(x=x, weight=_const("true_w", (64, 64)), name="when_true"),
            _false_fn=lambda: mb.linear(x=x, weight=outside, name="when_false"),
            name="cond",
        )
    return convert(program, "iOS18")


def nested_while():
    @mb.program(input_specs=_spec((4, 64)), opset_version=ct.target.iOS16)
    def program(x):
        def body(i, h):
            h = mb.linear(x=h, weight=_const("body_w", (64, 64)), name="step")
            return mb.add(x=i, y=1.0, name="next"), mb.tanh(x=h, name="squash")

        return mb.while_loop(
            _cond=lambda i, h: mb.less(x=i, y=3.0, name="more"), _body=body,
            loop_vars=(mb.const(val=np.float32(0), name="start"), x), name="loop")[1]
    return convert(program, "iOS16")


def flexible():
    """Any number of rows."""
    @mb.program(input_specs=[mb.TensorSpec((get_new_symbol(), 64))], opset_version=ct.target.iOS16)
    def program(x):
        return mb.linear(x=x, weight=_const("flex_w", (96, 64)), name="linear")
    shape = ct.Shape((ct.RangeDim(1, 32, default=4), 64))
    return convert(program, "iOS16", inputs=[ct.TensorType(name="x", shape=shape)])


def enumerated():
    """Two or eight rows."""
    @mb.program(input_specs=[mb.TensorSpec((get_new_symbol(), 64))], opset_version=ct.target.iOS16)
    def program(x):
        return mb.linear(x=x, weight=_const("enum_w", (96, 64)), name="linear")
    shape = ct.EnumeratedShapes([(2, 64), (8, 64)], default=(2, 64))
    return convert(program, "iOS16", inputs=[ct.TensorType(name="x", shape=shape)])


def classifier():
    @mb.program(input_specs=_spec((1, 96)), opset_version=ct.target.iOS16)
    def program(x):
        x = mb.linear(x=x, weight=_const("class_w", (48, 96)), name="linear")
        return mb.softmax(x=x, axis=-1, name="scores")
    model = convert(program, "iOS16", classifier_config=ct.ClassifierConfig([f"label {i}" for i in range(48)]))
    model.author, model.license = "An author", "A licence"
    model.user_defined_metadata["a key"] = "a value"
    return model


def stateful():
    """A cache that each run adds to."""
    state = mb.StateTensorSpec((1, 64), dtype=types.fp16)

    @mb.program(input_specs=[mb.TensorSpec((1, 64), dtype=types.fp16), state], opset_version=ct.target.iOS18)
    def program(x, cache):
        x = mb.linear(x=x, weight=_const("state_w", (64, 64), "fp16"), name="linear")
        total = mb.add(x=mb.read_state(input=cache, name="read"), y=x, name="total")
        kept = mb.coreml_update_state(state=cache, value=total, name="kept")
        return mb.linear(x=kept, weight=_const("after_w", (80, 64), "fp16"), name="after")
    return convert(program, "iOS18")


def layer_norm():
    """1-D constants above the threshold: the peer leaves every 1-D weight alone."""
    @mb.program(input_specs=_spec((2, 4096)), opset_version=ct.target.iOS18)
    def program(x):
        x = mb.layer_norm(x=x, axes=[-1], gamma=_const("gamma", (4096,)), beta=_const("beta", (4096,)), name="norm")
        return mb.linear(x=x, weight=_const("norm_w", (16, 4096)), name="linear")
    return convert(program, "iOS18")


def attention():
    """Queries, keys and values from linears, a causal mask with -inf, and an output projection."""
    mask = np.triu(np.full((64, 64), -np.inf, np.float16), 1)

    @mb.program(input_specs=_spec((1, 64, 48), dtype="fp16"), opset_version=ct.target.iOS18)
    def program(x):
        heads = []
        for part in "qkv":
            h = mb.linear(x=x, weight=_const(f"{part}_w", (48, 48), "fp16"), name=f"{part}_proj")
            heads.append(mb.transpose(x=mb.reshape(x=h, shape=[1, 64, 4, 12]), perm=[0, 2, 1, 3], name=f"{part}_heads"))
        mixed = mb.scaled_dot_product_attention(
            query=heads[0], key=heads[1], value=heads[2], attn_mask=mb.const(val=mask, name="mask"), name="attend")
        mixed = mb.reshape(x=mb.transpose(x=mixed, perm=[0, 2, 1, 3]), shape=[1, 64, 48])
        return mb.linear(x=mixed, weight=_const("out_w", (48, 48), "fp16"), name="out_proj")
    return convert(program, "iOS18")


def _adapter(name, target="iOS18"):
    """A base that every function shares, and an adapter of its own."""
    @mb.program(input_specs=_spec((4, 64)), opset_version=TARGETS[target])
    def program(x):
        x = mb.linear(x=x, weight=_const("base_w", (128, 64)), name="base")
        return mb.linear(x=x, weight=_const(f"{name}_w", (32, 128)), name=name)
    return convert(program, target)


def multifunction():
    """Two functions over one base: three blobs of weights, the base's stored once."""
    folder = Path(tempfile.mkdtemp())
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name in ("left", "right"):
        _adapter(name).save(str(folder / f"{name}.mlpackage"))
        descriptor.add_function(str(folder / f"{name}.mlpackage"), "main", name)
    descriptor.default_function_name = "left"
    ct.utils.save_multifunction(descriptor, str(folder / "both.mlpackage"))
    return folder / "both.mlpackage"


def pipeline():
    """Two ML Programs in a row, with a weight file each."""
    def part(name, wide, deep):
        @mb.program(input_specs=_spec((4, wide)), opset_version=ct.target.iOS18)
        def program(x):
            return mb.linear(x=x, weight=_const(f"{name}_w", (deep, wide)), name=name)
        return convert(program, "iOS18")

    first, second = part("first", 64, 80), part("second", 80, 48)
    spec = second.get_spec()
    ct.utils.rename_feature(spec, "x", "first")
    second = ct.models.MLModel(spec, weights_dir=second.weights_dir, skip_model_load=True)
    return ct.utils.make_pipeline(first, second)


def with_extras():
    """A package with an item of somebody else's, and model fields that this project does not read."""
    folder = Path(tempfile.mkdtemp()) / "extras.mlpackage"
    opset("iOS16").save(str(folder))
    notes = folder / "Data/org.example.notes"
    notes.mkdir(parents=True)
    (notes / "notes.txt").write_text("keep me\n")
    manifest = json.loads((folder / "Manifest.json").read_text())
    manifest["itemInfoEntries"]["11111111-2222-3333-4444-555555555555"] = {
        "author": "org.example.notes", "description": "Notes", "name": "notes.txt",
        "path": "org.example.notes/notes.txt",
    }
    (folder / "Manifest.json").write_text(json.dumps(manifest))
    program = folder / "Data/com.apple.CoreML/model.mlmodel"
    # field 3999 of Model, bytes "unknown": no schema has it, every reader must keep it
    program.write_bytes(program.read_bytes() + b"\xfa\xf9\x01\x07unknown")
    return folder


def outputs(target):
    """Constants that the function gives as outputs: one that an op uses too, one that nothing else uses."""
    @mb.program(input_specs=_spec((4, 64)), opset_version=TARGETS[target])
    def program(x):
        used, alone = _const("used_w", (64, 64)), _const("alone_w", (64, 64))
        return mb.linear(x=x, weight=used, name="linear"), used, alone
    return convert(program, target)


def flow():
    """Constants that are values: what a branch gives, where a loop starts, what goes into a list."""
    @mb.program(input_specs=_spec((64, 64)), opset_version=ct.target.iOS18)
    def program(x):
        start, item = _const("start_w", (64, 64)), _const("item_w", (64, 64))

        def given():
            inner = _const("branch_w", (64, 64))
            return inner, mb.linear(x=x, weight=inner, name="in_branch")
        flag = mb.greater(x=mb.reduce_max(x=x, keep_dims=False, axes=[0, 1]), y=np.float32(0))
        chosen, other = mb.cond(pred=flag, _true_fn=given, _false_fn=lambda: (mb.relu(x=x), mb.tanh(x=x)), name="cond")
        looped = mb.while_loop(
            _cond=lambda y: mb.less(x=mb.reduce_max(x=y, keep_dims=False, axes=[0, 1]), y=np.float32(9)),
            _body=lambda y: (mb.add(x=y, y=np.float32(1)),), loop_vars=(start,), name="loop")
        looped = mb.linear(x=looped, weight=start, name="after_loop")
        items = mb.make_list(init_length=1, dynamic_length=False, elem_shape=(64, 64), dtype="fp32", name="list")
        items = mb.list_write(ls=items, index=0, value=item, name="write")
        read = mb.list_read(ls=items, index=0, name="read")
        total = mb.add(x=mb.add(x=chosen, y=other), y=mb.add(x=looped, y=read), name="total")
        return mb.linear(x=total, weight=_const("weight_w", (64, 64)), name="last")
    return convert(program, "iOS18")


GRAPHS = {
    "CoreML5": (opset, "iOS15"), "CoreML6": (opset, "iOS16"), "CoreML7": (opset, "iOS17"),
    "CoreML8": (opset, "iOS18"), "CoreML9": (opset, "iOS26"),
    "mixed": (mixed,), "shared": (shared,), "disagreeing": (disagreeing,), "nested_cond": (nested_cond,),
    "nested_while": (nested_while,), "flexible": (flexible,), "enumerated": (enumerated,),
    "classifier": (classifier,), "stateful": (stateful,), "layer_norm": (layer_norm,),
    "attention": (attention,), "multifunction": (multifunction,), "pipeline": (pipeline,),
    "with_extras": (with_extras,),
}
