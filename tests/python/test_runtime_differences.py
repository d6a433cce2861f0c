"""Gradients of programs of several operations against central differences of their own outputs: no other framework is believed."""

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from mil import model
from palettizer.runtime import Session

RNG = np.random.default_rng(17)
# of the elements' shares of a slope, the root of their squares: differences of fp32 are good to 2e-4 of it
TOLERANCE = 1e-3
STEP = 2.0**-5
DIRECTIONS = 3


def values(*shape, scale=1.0, offset=0.0):
    return (RNG.normal(size=shape) * scale + offset).astype(np.float32)


def positive(*shape):
    return RNG.uniform(0.5, 1.5, shape).astype(np.float32)


def apart(*shape):
    """Values no two of which change places on the way."""
    count = np.prod(shape)
    return ((RNG.permutation(count) - count / 2) / 4).astype(np.float32).reshape(shape)


def slope(images, channels, height, width):
    """Images without an edge between two pixels, where slopes would jump."""
    by, down, along = values(3, images, channels, 1, 1, scale=0.2)
    return by + down * np.arange(height, dtype=np.float32)[:, None] + along * np.arange(width, dtype=np.float32)


def convolutions(x, first, bias, depthwise, up):
    x = mb.silu(x=mb.conv(x=x, weight=first, bias=bias, strides=[2, 1], pad_type="custom", pad=[1, 0, 2, 1], dilations=[1, 2]))
    x = mb.tanh(x=mb.conv(x=x, weight=depthwise, groups=6, pad_type="same"))
    return mb.conv_transpose(x=x, weight=up, strides=[2, 2], groups=2, pad_type="valid")


def convolutions_of_other_ranks(x, line, volume):
    x = mb.softplus(x=mb.conv(x=x, weight=line, pad_type="same_lower"))
    return mb.conv(x=mb.reshape(x=x, shape=[1, 2, 2, 3, 4]), weight=volume, pad_type="valid")


def norms(x, gamma, beta, mean, variance, scale, shift):
    batch = mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta)
    instance = mb.instance_norm(x=mb.sigmoid(x=batch), gamma=gamma, beta=beta)
    layer = mb.layer_norm(x=instance, axes=[2, 3], gamma=scale, beta=shift)
    return mb.local_response_norm(x=mb.l2_norm(x=layer), size=3), batch


def pools(x):
    smooth = mb.avg_pool(x=mb.tanh(x=x), kernel_sizes=[3, 2], strides=[2, 1], pad_type="same", exclude_padding_from_average=True)
    norm = mb.l2_pool(x=mb.exp(x=mb.mul(x=x, y=np.float32(0.1))), kernel_sizes=[2, 2], strides=[1, 2], pad_type="valid")
    return smooth, norm, mb.max_pool(x=x, kernel_sizes=[2, 3], strides=[1, 1], pad_type="valid")


def attention(x, query, key, value, out, gamma, wide, narrow):
    def heads(weight):
        return mb.transpose(x=mb.reshape(x=mb.linear(x=x, weight=weight), shape=[1, 5, 2, 4]), perm=[0, 2, 1, 3])
    seen = mb.scaled_dot_product_attention(query=heads(query), key=heads(key), value=heads(value))
    seen = mb.reshape(x=mb.transpose(x=seen, perm=[0, 2, 1, 3]), shape=[1, 5, 8])
    x = mb.layer_norm(x=mb.add(x=x, y=mb.linear(x=seen, weight=out)), axes=[-1], gamma=gamma)
    return mb.add(x=x, y=mb.linear(x=mb.gelu(x=mb.linear(x=x, weight=wide)), weight=narrow))


def lstm(x, h, c, weight_ih, weight_hh, bias, weight_ih_back, weight_hh_back, bias_back):
    return mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=weight_ih, weight_hh=weight_hh, bias=bias, weight_ih_back=weight_ih_back,
                   weight_hh_back=weight_hh_back, bias_back=bias_back, direction="bidirectional", output_sequence=True)


def gru(x, h, weight_ih, weight_hh, bias, input_bias):
    return mb.gru(x=x, initial_h=h, weight_ih=weight_ih, weight_hh=weight_hh, bias=bias, input_bias=input_bias, output_sequence=True)


def rnn(x, h, weight_ih, weight_hh, bias):
    return mb.rnn(x=x, initial_h=h, weight_ih=weight_ih, weight_hh=weight_hh, bias=bias, direction="reverse", output_sequence=True)


def products(x, y, weight):
    both = mb.matmul(x=mb.sin(x=x), y=y, transpose_y=True)
    other = mb.einsum(values=(mb.expand_dims(x=both, axes=[0]), mb.expand_dims(x=weight, axes=[0])), equation="abcd,adce->abce")
    return mb.softmax(x=both, axis=1), mb.reduce_log_sum_exp(x=other, axes=[-1])


def gathers(x, table):
    rows = mb.gather(x=table, indices=np.array([[3, 0], [3, 5]], np.int32), axis=0)
    along = mb.gather_along_axis(x=x, indices=np.array([[0, 2, 1, 1], [2, 2, 0, 1]], np.int32), axis=0)
    points = mb.gather_nd(x=mb.tanh(x=table), indices=np.array([[1, 2], [5, 0], [1, 2]], np.int32))
    put = mb.scatter(data=table, indices=np.array([4, 1], np.int32), updates=mb.square(x=along), axis=0, mode="add")
    some = mb.scatter_nd(data=x, indices=np.array([[0], [2]], np.int32), updates=mb.exp(x=along), mode="mul")
    return mb.sin(x=rows), points, mb.cos(x=put), some


def slices(x):
    middle = mb.slice_by_index(x=x, begin=[0, 1, 4], end=[2, 3, 0], stride=[1, 1, -2])
    wide = mb.pad(x=mb.square(x=x), pad=[1, 0, 2, 1], mode="reflect")
    parts = mb.split(x=mb.sin(x=x), num_splits=2, axis=0)
    joined = mb.concat(values=[mb.tile(x=parts[1], reps=[1, 1, 2]), mb.concat(values=[parts[0], parts[1]], axis=2)], axis=1)
    summed = mb.cumsum(x=mb.exp(x=x), axis=1, reverse=True, exclusive=True)
    blocks = mb.depth_to_space(x=mb.reshape(x=mb.sigmoid(x=x), shape=[1, 8, 1, 5]), block_size=2)
    return middle, mb.sliding_windows(x=wide, axis=2, size=3, stride=2), joined, mb.band_part(x=summed, lower=1, upper=2), blocks


def sizes(x, grid):
    x = mb.tanh(x=x)
    larger = mb.resize_bilinear(x=x, target_size_height=7, target_size_width=9, sampling_mode="ALIGN_CORNERS")
    upper = mb.upsample_bilinear(x=x, scale_factor_height=2.0, scale_factor_width=1.5, align_corners=False)
    sampled = mb.resample(x=x, coordinates=grid, sampling_mode="bilinear", padding_mode="symmetric", padding_value=np.float32(0),
                          coordinates_mode="unnormalized", align_corners=True)
    return mb.square(x=larger), upper, sampled


def turn(x, theta):
    turned = mb.affine(x=x, transform_matrix=theta, output_height=5, output_width=4, sampling_mode="bilinear", padding_mode="constant",
                       padding_value=np.float32(0), coordinates_mode="normalized_minus_one_to_one", align_corners=True)
    return mb.tanh(x=turned)


def functions(x, y):
    first = mb.log(x=mb.add(x=mb.square(x=x), y=y))
    second = mb.pow(x=y, y=mb.sigmoid(x=x))
    third = mb.real_div(x=mb.erf(x=x), y=mb.sqrt(x=mb.add(x=y, y=mb.cosh(x=x))))
    fourth = mb.mul(x=mb.rsqrt(x=y), y=mb.atan(x=mb.sub(x=x, y=y)))
    return first, second, third, fourth, mb.softsign(x=mb.mul(x=x, y=np.float32(3))), mb.scaled_tanh(x=x, alpha=1.5, beta=0.5)


def reductions(x):
    wide = mb.mul(x=x, y=mb.reduce_mean(x=x, axes=[1], keep_dims=True))
    return (mb.reduce_prod(x=wide, axes=[2]), mb.reduce_l2_norm(x=wide, axes=[0, 2]), mb.reduce_log_sum(x=wide, axes=[1]),
            mb.reduce_sum_square(x=wide, axes=[0]), mb.reduce_sum(x=mb.sin(x=wide), axes=[0, 1, 2], keep_dims=True))


def loop(x, weight):
    def body(i, value):
        return mb.add(x=i, y=np.int32(1)), mb.tanh(x=mb.matmul(x=value, y=weight))
    _, found = mb.while_loop(_cond=lambda i, value: mb.less(x=i, y=np.int32(4)), _body=body, loop_vars=(mb.fill(shape=[1], value=np.int32(0)), x))
    return found


# what makes the program, what it is given, and its constants
PROGRAMS = {
    "convolutions": (convolutions, {"x": values(2, 3, 9, 8)}, {
        "first": values(6, 3, 3, 2, scale=0.4), "bias": values(6), "depthwise": values(6, 1, 3, 3, scale=0.4), "up": values(6, 2, 3, 2)}),
    "convolutions of other ranks": (convolutions_of_other_ranks, {"x": values(1, 3, 12)}, {
        "line": values(4, 3, 4, scale=0.5), "volume": values(3, 2, 2, 2, 3)}),
    "norms": (norms, {"x": values(2, 4, 3, 5)}, {
        "gamma": values(4, offset=1), "beta": values(4), "mean": values(4), "variance": positive(4), "scale": values(3, 5), "shift": values(3, 5)}),
    "pools": (pools, {"x": apart(1, 2, 6, 5)}, {}),
    "attention": (attention, {"x": values(1, 5, 8)}, {
        **{name: values(8, 8, scale=0.35) for name in ("query", "key", "value", "out")}, "gamma": values(8, offset=1),
        "wide": values(16, 8, scale=0.35), "narrow": values(8, 16, scale=0.25)}),
    "lstm": (lstm, {"x": values(4, 2, 3), "h": values(2, 8), "c": values(2, 8)}, {
        name + side: values(*shape, scale=0.5) for side in ("", "_back")
        for name, shape in [("weight_ih", (16, 3)), ("weight_hh", (16, 4)), ("bias", (16,))]}),
    "gru": (gru, {"x": values(5, 2, 3), "h": values(2, 4)}, {
        "weight_ih": values(12, 3, scale=0.5), "weight_hh": values(12, 4, scale=0.5), "bias": values(12), "input_bias": values(12)}),
    "rnn": (rnn, {"x": values(5, 2, 3), "h": values(2, 4)}, {
        "weight_ih": values(4, 3, scale=0.5), "weight_hh": values(4, 4, scale=0.5), "bias": values(4)}),
    "products": (products, {"x": values(2, 3, 5), "y": values(2, 4, 5)}, {"weight": values(4, 3, 6)}),
    "gathers": (gathers, {"x": values(3, 4)}, {"table": values(6, 4)}),
    "slices": (slices, {"x": values(2, 4, 5)}, {}),
    "sizes": (sizes, {
        "x": values(2, 3, 4, 6), "grid": (RNG.integers(0, 3, (2, 3, 4, 2)) + RNG.uniform(0.3, 0.7, (2, 3, 4, 2))).astype(np.float32)}, {}),
    "turn": (turn, {"x": slope(2, 3, 4, 6), "theta": np.array([[0.5, 0.11, 0.07, -0.13, 0.4, 0.02]] * 2, np.float32)}, {}),
    "functions": (functions, {"x": values(4, 6), "y": positive(4, 6)}, {}),
    "reductions": (reductions, {"x": positive(2, 3, 4)}, {}),
    "loop": (loop, {"x": values(2, 5)}, {"weight": values(5, 5, scale=0.5)}),
}

def made(build, inputs, constants):
    def whole(**given):
        return build(**given, **{name: mb.const(val=value, name=name) for name, value in constants.items()})
    mlmodel = model(whole, inputs)
    return Session(mlmodel), [output.name for output in mlmodel.get_spec().description.output]


@pytest.mark.parametrize("name", PROGRAMS)
def test_slopes_are_those_of_differences(name):
    build, inputs, constants = PROGRAMS[name]
    at = inputs | constants
    session, names = made(build, inputs, constants)
    outputs = session.predict(inputs)
    rng = np.random.default_rng(len(name))
    factors = {output: rng.normal(size=outputs[output].shape).astype(np.float32) for output in names}
    gradients = session.grad(inputs, factors, [*at]).gradients

    def total(moved):
        session, names_now = made(build, {key: moved[key] for key in inputs}, {key: moved[key] for key in constants})
        found = session.predict({key: moved[key] for key in inputs})
        return sum((found[now].astype(np.float64) * factors[then]).sum() for now, then in zip(names_now, names))

    def difference(directions, step):
        ahead, behind = ({key: (value + sign * step * directions[key]).astype(np.float32) for key, value in at.items()} for sign in (1, -1))
        return (total(ahead) - total(behind)) / (2 * step)
    for moving in at:
        for _ in range(DIRECTIONS):
            # all elements of one tensor move, some forth and some back
            length = STEP * rng.integers(2, 8)
            directions = dict.fromkeys(at, np.float32(0))
            directions[moving] = rng.choice([-1.0, 1.0], at[moving].shape) / 8
            share = gradients[moving].astype(np.float64) * directions[moving]
            # the error of a central difference goes with the square of the step: two of them cancel it
            coarse, fine = difference(directions, length), difference(directions, length / 2)
            wanted = (4 * fine - coarse) / 3
            size = np.sqrt((share**2).sum())
            assert size > 0, f"{moving} has no slope"
            wrong = abs(share.sum() - wanted) / size
            assert wrong <= TOLERANCE, f"the slope along {moving} is {share.sum()}, that of differences {wanted}: off by {wrong}"
