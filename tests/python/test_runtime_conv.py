"""Convolutions of programs that we run, against torch in float64: every parameter, and the gradients of all three arguments."""

import mil
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

RNG = np.random.default_rng(7)
CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def numbers(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def extents(kernel, dilations):
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]


def padding(kind, pad, size, kernel, strides, dilations):
    """Padding before and after each axis."""
    if kind == "custom":
        return list(zip(pad[::2], pad[1::2]))
    if kind == "valid":
        return [(0, 0)] * len(size)
    totals = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(size, extents(kernel, dilations), strides)]
    return [(t - t // 2, t // 2) if kind == "same_lower" else (t // 2, t - t // 2) for t in totals]


def convolve(x, weight, bias, pads, strides, dilations, groups):
    """torch's convolution, of tensors, with padding on either side."""
    flat = [n for pair in reversed(pads) for n in pair]
    return CONVS[x.dim() - 2](F.pad(x, flat), weight, bias, strides, 0, dilations, groups)


def conv_case(x, weight, bias=False, target="iOS18", constant=True, dtype=np.float32, **options):
    axes = len(x) - 2
    strides, dilations = options.get("strides", [1] * axes), options.get("dilations", [1] * axes)
    groups = options.get("groups", 1)
    inputs = {"x": numbers(*x, dtype=dtype), "weight": numbers(*weight, dtype=dtype)}
    if bias:
        inputs["bias"] = numbers(weight[0], dtype=dtype)
    pads = padding(options.get("pad_type", "valid"), options.get("pad", [0, 0] * axes), x[2:], weight[2:], strides, dilations)
    constants = {name: inputs.pop(name) for name in ["weight", "bias"] if constant and name in inputs}

    def build(**given):
        return mb.conv(**given, **constants, **options)

    def expected(**given):
        given |= {name: value.astype(np.float64) for name, value in constants.items()}
        x, weight, bias = (None if given.get(name) is None else torch.tensor(given[name]) for name in ("x", "weight", "bias"))
        return convolve(x, weight, bias, pads, strides, dilations, groups).numpy()

    return build, inputs, expected, target


CASES = [
    # one axis
    {"x": (2, 3, 10), "weight": (4, 3, 3)},
    {"x": (1, 1, 1024), "weight": (16, 1, 64), "strides": [4], "pad_type": "custom", "pad": [30, 31], "bias": True},
    {"x": (2, 4, 9), "weight": (6, 2, 2), "groups": 2, "pad_type": "same", "strides": [2], "bias": True},
    {"x": (1, 2, 5000), "weight": (3, 2, 5), "dilations": [7], "pad_type": "same"},
    {"x": (1, 40, 700), "weight": (24, 40, 9), "pad_type": "same", "bias": True},
    {"x": (3, 6, 7), "weight": (6, 1, 3), "groups": 6, "pad_type": "same_lower", "strides": [3]},
    {"x": (1, 700, 30), "weight": (3, 700, 1), "bias": True},
    # two
    {"x": (2, 3, 9, 8), "weight": (5, 3, 3, 3), "bias": True},
    {"x": (1, 3, 33, 35), "weight": (8, 3, 7, 7), "strides": [2, 2], "pad_type": "custom", "pad": [3, 3, 3, 3]},
    {"x": (2, 8, 6, 5), "weight": (4, 8, 1, 1), "bias": True},
    {"x": (2, 8, 6, 5), "weight": (4, 8, 1, 1)},
    {"x": (2, 8, 6, 5), "weight": (4, 8, 1, 1), "strides": [2, 3]},
    {"x": (2, 8, 6, 5), "weight": (4, 8, 1, 1), "pad_type": "custom", "pad": [1, 0, 0, 2], "bias": True},
    {"x": (2, 8, 6, 5), "weight": (8, 4, 1, 1), "groups": 2, "bias": True},
    {"x": (3, 4, 6, 5), "weight": (7, 4, 6, 5), "bias": True},
    {"x": (3, 4, 6, 5), "weight": (8, 2, 6, 5), "groups": 2},
    {"x": (1, 6, 12, 11), "weight": (6, 1, 3, 3), "groups": 6, "pad_type": "same", "bias": True},
    {"x": (2, 6, 12, 11), "weight": (12, 1, 5, 3), "groups": 6, "pad_type": "same", "strides": [2, 1]},
    {"x": (1, 5, 80, 70), "weight": (5, 1, 3, 3), "groups": 5, "pad_type": "custom", "pad": [1, 2, 0, 3], "dilations": [2, 3]},
    {"x": (1, 1, 90, 80), "weight": (2, 1, 3, 3), "bias": True},
    {"x": (1, 8, 9, 9), "weight": (8, 2, 3, 3), "groups": 4, "dilations": [2, 1], "pad_type": "same_lower", "strides": [2, 2]},
    {"x": (1, 3, 4, 5), "weight": (2, 3, 2, 4), "pad_type": "same"},
    {"x": (1, 3, 4, 5), "weight": (2, 3, 2, 4), "pad_type": "same_lower", "bias": True},
    {"x": (1, 2, 3, 3), "weight": (2, 2, 2, 2), "dilations": [900, 1], "pad_type": "custom", "pad": [900, 900, 0, 0]},
    {"x": (1, 2, 40, 3), "weight": (2, 2, 3, 2), "strides": [30, 5], "pad_type": "custom", "pad": [0, 40, 7, 0]},
    {"x": (9, 32, 7, 7), "weight": (48, 32, 3, 3), "pad_type": "same", "bias": True},
    {"x": (1, 70, 40, 41), "weight": (20, 70, 3, 3), "pad_type": "same"},
    {"x": (1, 1, 1, 1), "weight": (1, 1, 1, 1), "bias": True},
    # three
    {"x": (2, 2, 4, 5, 6), "weight": (3, 2, 2, 3, 2), "bias": True},
    {"x": (1, 4, 5, 5, 5), "weight": (4, 2, 3, 2, 3), "groups": 2, "strides": [2, 1, 2], "dilations": [1, 2, 1], "pad_type": "same"},
    {"x": (1, 3, 4, 6, 5), "weight": (6, 1, 3, 3, 3), "groups": 3, "pad_type": "same_lower", "strides": [1, 2, 1], "bias": True},
    {"x": (2, 3, 4, 6, 5), "weight": (6, 3, 1, 1, 1)},
    {"x": (2, 3, 4, 6, 5), "weight": (6, 3, 3, 1, 1), "pad_type": "custom", "pad": [2, 1, 0, 0, 0, 0]},
    {"x": (2, 3, 2, 3, 4), "weight": (5, 3, 2, 3, 4), "bias": True},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_conv(case, dtype):
    mil.check(*conv_case(**case, dtype=dtype))


@pytest.mark.parametrize("case", [CASES[2], CASES[7], CASES[14], CASES[16]], ids=str)
def test_conv_whose_weights_are_inputs(case):
    mil.check(*conv_case(**case, constant=False))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_of_conv(case):
    options = {name: value for name, value in case.items() if name not in ("x", "weight", "bias")}
    axes = len(case["x"]) - 2
    strides, dilations = options.get("strides", [1] * axes), options.get("dilations", [1] * axes)
    pads = padding(options.get("pad_type", "valid"), options.get("pad", [0, 0] * axes), case["x"][2:], case["weight"][2:],
                   strides, dilations)
    inputs = {"x": numbers(*case["x"]), "weight": numbers(*case["weight"])}
    if case.get("bias"):
        inputs["bias"] = numbers(case["weight"][0])
    if max(dilations) > 1:  # the builder has dilated weights constant; the engine has not
        inputs = {"x": inputs["x"]}
        weight = numbers(*case["weight"])
        mil.check_gradients(lambda x: mb.conv(x=x, weight=weight, **options),
                            lambda x: convolve(x, torch.tensor(weight.astype(np.float64)), None, pads, strides, dilations,
                                               options.get("groups", 1)), inputs)
        return

    def function(x, weight, bias=None):
        return convolve(x, weight, bias, pads, strides, dilations, options.get("groups", 1))
    mil.check_gradients(lambda **given: mb.conv(**given, **options), function, inputs)


def transpose(x, weight, bias, shape, before, strides, dilations, groups):
    """torch's transposed convolution, cut at `before` and filled with zeros up to `shape`."""
    whole = TRANSPOSED[x.dim() - 2](x, weight, None, strides, 0, 0, groups, dilations)
    for axis, (start, size) in enumerate(zip(before, shape), 2):
        more = start + size - whole.shape[axis]
        if more > 0:
            gap = list(whole.shape)
            gap[axis] = more
            whole = torch.cat([whole, torch.zeros(gap, dtype=whole.dtype)], axis)
        whole = whole.narrow(axis, start, size)
    if bias is None:
        return whole
    return whole + bias.reshape([1, -1] + [1] * (x.dim() - 2))


def transposed_case(x, weight, bias=False, **options):
    """(build, function of tensors, inputs); the builder wants a constant bias."""
    axes = len(x) - 2
    strides, dilations = options.get("strides", [1] * axes), options.get("dilations", [1] * axes)
    kind, pad = options.get("pad_type", "valid"), options.get("pad", [0, 0] * axes)
    whole = [(n - 1) * s + k for n, s, k in zip(x[2:], strides, extents(weight[2:], dilations))]
    shape = options.get("output_shape", [0, 0] + [
        w - (pad[2 * i] + pad[2 * i + 1] if kind == "custom" else 0) if kind != "same" else x[2 + i] * strides[i]
        for i, w in enumerate(whole)])[2:]
    before = pad[::2] if kind == "custom" else [max(0, w - n) // 2 if kind == "same" else 0 for w, n in zip(whole, shape)]
    inputs = {"x": numbers(*x), "weight": numbers(*weight)}
    constant = numbers(weight[1] * options.get("groups", 1)) if bias else None

    def function(x, weight):
        bias = None if constant is None else torch.tensor(constant.astype(np.float64))
        return transpose(x, weight, bias, shape, before, strides, dilations, options.get("groups", 1))

    def build(x, weight):
        more = {} if constant is None else {"bias": mb.const(val=constant, name="bias")}
        return mb.conv_transpose(x=x, weight=weight, **more, **options)
    return build, function, inputs


TRANSPOSED_CASES = [
    {"x": (2, 3, 7), "weight": (3, 4, 3)},
    {"x": (1, 6, 7), "weight": (6, 2, 4), "groups": 2, "strides": [2], "bias": True},
    {"x": (1, 6, 30), "weight": (6, 1, 5), "groups": 6, "strides": [3], "pad_type": "custom", "pad": [2, 1], "bias": True},
    {"x": (1, 2, 5), "weight": (2, 3, 3), "strides": [2], "dilations": [3], "pad_type": "same"},
    {"x": (1, 2, 5), "weight": (2, 3, 2), "strides": [5], "pad_type": "same", "bias": True},
    {"x": (2, 3, 5, 6), "weight": (3, 4, 3, 2), "strides": [2, 1], "pad_type": "custom", "pad": [1, 0, 0, 1], "bias": True},
    {"x": (2, 3, 5, 6), "weight": (3, 4, 4, 4), "strides": [2, 2], "pad_type": "same"},
    {"x": (1, 3, 5, 6), "weight": (3, 4, 3, 3), "strides": [2, 2], "pad_type": "same", "output_shape": [1, 4, 9, 12], "bias": True},
    {"x": (1, 3, 5, 6), "weight": (3, 4, 3, 3), "strides": [2, 2], "pad_type": "valid", "output_shape": [1, 4, 12, 13]},
    {"x": (1, 3, 5, 6), "weight": (3, 4, 3, 3), "strides": [3, 2], "pad_type": "custom", "pad": [1, 1, 2, 0], "output_shape": [1, 4, 15, 11]},
    {"x": (2, 4, 6, 5), "weight": (4, 3, 1, 1), "bias": True},
    {"x": (2, 4, 6, 5), "weight": (4, 3, 1, 1), "groups": 2},
    {"x": (2, 4, 1, 1), "weight": (4, 3, 5, 4), "bias": True},
    {"x": (1, 40, 20, 21), "weight": (40, 30, 3, 3), "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]},
    {"x": (1, 8, 9, 8), "weight": (8, 1, 3, 3), "groups": 8, "strides": [2, 2], "pad_type": "same"},
    {"x": (1, 4, 9, 8), "weight": (4, 2, 3, 3), "groups": 4, "dilations": [2, 1], "bias": True},
    {"x": (1, 2, 3, 4, 5), "weight": (2, 3, 2, 3, 2), "strides": [2, 1, 2], "bias": True},
    {"x": (1, 4, 3, 4, 5), "weight": (4, 2, 3, 3, 3), "groups": 2, "strides": [1, 2, 2], "pad_type": "same"},
]


@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_conv_transpose_and_its_gradients(case):
    build, function, inputs = transposed_case(**case)
    expected = lambda **given: function(**{name: torch.tensor(value) for name, value in given.items()}).numpy()
    output, = mil.check(build, inputs, expected)
    mil.check_gradients(build, function, inputs)
    if case.get("bias"):
        found = mil.gradients(build, inputs, ["bias"])["bias"]
        factors = mil._factors(output.shape, 0, 0).astype(np.float64)
        np.testing.assert_allclose(found, factors.sum((0, *range(2, output.ndim))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 6])
def test_conv_quantized(channels):
    weight = RNG.integers(0, 256, (6, 2, 3, 3)).astype(np.uint8)
    scale, offset = (RNG.uniform(0.01, 0.02, channels).astype(np.float32) for _ in range(2))
    x, bias = numbers(2, 4, 9, 8), np.arange(6, dtype=np.uint8)

    def build(x):
        return mb.conv_quantized(x=x, weight=weight, bias=bias, quantization_type="linear", nbits=8, quant_scale=scale,
                                 quant_bias=-offset, pad_type="same", strides=[2, 1], groups=2)

    def function(x):
        spread = lambda each: torch.tensor(each.astype(np.float64)).reshape(-1, 1, 1, 1)
        floats = torch.tensor(weight.astype(np.float64)) * spread(scale) - spread(offset)
        pads = padding("same", [], (9, 8), (3, 3), (2, 1), (1, 1))
        return convolve(x, floats, torch.tensor(bias.astype(np.float64)), pads, (2, 1), (1, 1), 2)
    mil.check(build, {"x": x}, lambda x: function(torch.tensor(x)).numpy(), target="iOS15")
    mil.check_gradients(build, function, {"x": x}, target="iOS15")


@pytest.mark.parametrize("case", [CASES[7], CASES[17], CASES[25], CASES[26]], ids=str)
def test_any_number_of_threads_gives_the_same_bytes(case):
    build, inputs, _, target = conv_case(**case)
    first, = mil.run(build, inputs, target, threads=1)
    for threads in (2, 5):
        again, = mil.run(build, inputs, target, threads=threads)
        assert first.tobytes() == again.tobytes()
