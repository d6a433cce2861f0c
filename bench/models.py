"""The networks that the benchmark compresses: real shapes, random weights of a realistic distribution.

Each is built once with coremltools' MIL builder and kept in a cache folder.
"""

import zlib
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

import weights

VERSION = 1  # in the cache's file names: raise it when a builder changes
DTYPES = {"fp16": (np.float16, types.fp16), "fp32": (np.float32, types.fp32)}


class Weights:
    """Named random constants of one element type."""

    def __init__(self, dtype):
        self.dtype = DTYPES[dtype][0]

    def __call__(self, name, shape):
        return mb.const(val=weights.draw(name, shape).astype(self.dtype), name=name)

    def bias(self, name, size):
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return (rng.standard_normal(size) * 0.1).astype(self.dtype)


def _conv(w, x, name, deep, size, stride=1, groups=1):
    shape = (deep, x.shape[1] // groups, size, size)
    return mb.conv(x=x, weight=w(name + "_weight", shape), bias=w.bias(name + "_bias", deep), strides=[stride, stride],
                   pad_type="custom", pad=[size // 2] * 4, groups=groups, name=name)


def resnet50(w, x):
    """torchvision's ResNet-50 with its batch norms folded: 25.5 million weights."""
    x = mb.relu(x=_conv(w, x, "conv1", 64, 7, 2))
    x = mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4)
    for stage, (blocks, mid) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 1):
        for block in range(blocks):
            name, stride = f"layer{stage}_{block}", 2 if stage > 1 and block == 0 else 1
            y = mb.relu(x=_conv(w, x, name + "_conv1", mid, 1))
            y = mb.relu(x=_conv(w, y, name + "_conv2", mid, 3, stride))
            y = _conv(w, y, name + "_conv3", mid * 4, 1)
            x = _conv(w, x, name + "_downsample", mid * 4, 1, stride) if block == 0 else x
            x = mb.relu(x=mb.add(x=x, y=y))
    x = mb.squeeze(x=mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True), axes=[2, 3])
    return mb.linear(x=x, weight=w("fc_weight", (1000, 2048)), bias=w.bias("fc_bias", 1000), name="fc")


def mobilenetv2(w, x):
    """MobileNetV2: 3.5 million weights, a third of the layers depthwise."""
    x = mb.relu6(x=_conv(w, x, "stem", 32, 3, 2))
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for stage, (expand, deep, repeats, first) in enumerate(plan):
        for block in range(repeats):
            name, stride = f"block{stage}_{block}", first if block == 0 else 1
            wide = x.shape[1] * expand
            y = x if expand == 1 else mb.relu6(x=_conv(w, x, name + "_expand", wide, 1))
            y = mb.relu6(x=_conv(w, y, name + "_depthwise", wide, 3, stride, groups=wide))
            y = _conv(w, y, name + "_project", deep, 1)
            x = mb.add(x=x, y=y) if stride == 1 and x.shape[1] == deep else y
    x = mb.relu6(x=_conv(w, x, "head", 1280, 1))
    x = mb.squeeze(x=mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True), axes=[2, 3])
    return mb.linear(x=x, weight=w("fc_weight", (1000, 1280)), bias=w.bias("fc_bias", 1000), name="fc")


def gpt2(w, tokens, length=64, width=768, heads=12, layers=12):
    """GPT-2 with 124 million weights; the head shares the embedding."""
    embedding = w("wte", (50257, width))
    x = mb.gather(x=embedding, indices=mb.cast(x=tokens, dtype="int32"), axis=0)
    position = mb.gather(x=w("wpe", (1024, width)), indices=np.arange(length, dtype=np.int32), axis=0)
    x = mb.add(x=x, y=position)

    def norm(x, name):
        gamma, beta = np.ones(width, w.dtype), w.bias(name, width)
        return mb.layer_norm(x=x, axes=[-1], gamma=gamma, beta=beta, epsilon=mb.const(val=w.dtype(1e-5)))

    def linear(x, name, deep):
        return mb.linear(x=x, weight=w(name, (deep, x.shape[-1])), bias=w.bias(name + "_bias", deep), name=name + "_op")

    for layer in range(layers):
        qkv = linear(norm(x, f"h{layer}_ln1"), f"h{layer}_attn", 3 * width)
        split = [mb.transpose(x=mb.reshape(x=part, shape=[length, heads, width // heads]), perm=[1, 0, 2])
                 for part in mb.split(x=qkv, num_splits=3, axis=-1)]
        scores = mb.softmax(x=mb.matmul(x=split[0], y=split[1], transpose_y=True), axis=-1)
        y = mb.reshape(x=mb.transpose(x=mb.matmul(x=scores, y=split[2]), perm=[1, 0, 2]), shape=[length, width])
        x = mb.add(x=x, y=linear(y, f"h{layer}_proj", width))
        y = mb.gelu(x=linear(norm(x, f"h{layer}_ln2"), f"h{layer}_fc", 4 * width), mode="TANH_APPROXIMATION")
        x = mb.add(x=x, y=linear(y, f"h{layer}_out", width))
    return mb.linear(x=norm(x, "ln_f"), weight=embedding, name="head")


MODELS = {  # name -> (builder, input shape, element type)
    "resnet50-fp16": (resnet50, (1, 3, 224, 224), "fp16"),
    "resnet50-fp32": (resnet50, (1, 3, 224, 224), "fp32"),
    "mobilenetv2-fp16": (mobilenetv2, (1, 3, 224, 224), "fp16"),
    "gpt2-fp16": (gpt2, (64,), "fp16"),
}


def make(name, cache):
    """The package of a model in the cache folder, built if it is not there."""
    path = Path(cache) / f"{name}-v{VERSION}.mlpackage"
    if path.exists():
        return path
    builder, shape, dtype = MODELS[name]

    @mb.program(input_specs=[mb.TensorSpec(shape, dtype=DTYPES[dtype][1])], opset_version=ct.target.iOS18)
    def program(x):
        return builder(Weights(dtype), x)

    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18,
                       compute_precision=ct.precision.FLOAT32, pass_pipeline=ct.PassPipeline.EMPTY,
                       skip_model_load=True)
    part = path.with_name("part-" + path.name)
    model.save(str(part))
    part.rename(path)
    return path
