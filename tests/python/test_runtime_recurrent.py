"""Recurrent layers of programs that we run, against their formulas in torch, step by step, as the peer's own tests have them."""

import itertools

import mil
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

RNG = np.random.default_rng(5)
ACTIVATIONS = {
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "relu": torch.relu,
    "linear": lambda x: x,
}


def numbers(*shape):
    return (RNG.standard_normal(shape) * 0.6).astype(np.float32)


def check(op, function, inputs, constants, tolerance=1e-4, **options):
    """Outputs in both types, and the gradients of inputs and constants."""
    def build(**given):
        named = {name: mb.const(val=value, name=name) for name, value in constants.items()}
        return op(**given, **named, **options)

    def in_float64(**given):
        values = {name: torch.tensor(value.astype(np.float64)) for name, value in (given | constants).items()}
        return [output.numpy() for output in function(**values)]
    found = mil.check(build, inputs, in_float64)
    every = inputs | constants
    gradients = mil.gradients(build, inputs, list(every))
    tensors = {name: torch.tensor(value.astype(np.float64), requires_grad=True) for name, value in every.items()}
    total = sum((output * torch.tensor(mil._factors(tuple(output.shape), 0, at), dtype=torch.float64)).sum()
                for at, output in enumerate(function(**tensors)))
    expected = torch.autograd.grad(total, list(tensors.values()), materialize_grads=True)
    for name, wanted in zip(every, expected):
        wanted = wanted.numpy()
        wrong = np.abs(gradients[name] - wanted).max(initial=0)
        assert wrong <= tolerance * np.abs(wanted).max(initial=0) + 1e-6, f"the gradient of {name} is off by {wrong}"
    halves = {name: value.astype(np.float16) for name, value in constants.items()}
    rounded = {name: value.astype(np.float16) for name, value in inputs.items()}

    def build_halves(**given):
        return op(**given, **halves, **options)
    for one, other in zip(mil.run(build_halves, rounded), found):
        np.testing.assert_allclose(one.astype(np.float32), other, atol=0.02, rtol=0.02)


def given(outputs, sequence):
    """All steps or the last one."""
    return torch.stack(outputs) if sequence else outputs[-1][None]


def order(x, direction):
    return list(x.flip(0) if direction == "reverse" else x)


def rnn(x, initial_h, weight_ih, weight_hh, bias=None, direction="forward", output_sequence=False, activation="tanh"):
    h, outputs = initial_h, []
    for step in order(x, direction):
        h = ACTIVATIONS[activation](step @ weight_ih.T + h @ weight_hh.T + (0 if bias is None else bias))
        outputs.append(h)
    return given(outputs, output_sequence), h


def gru(x, initial_h, weight_ih, weight_hh, bias=None, input_bias=None, direction="forward", output_sequence=False,
        recurrent_activation="sigmoid", activation="tanh", reset_after=False):
    h, outputs = initial_h, []
    gate, new = ACTIVATIONS[recurrent_activation], ACTIVATIONS[activation]
    zero = torch.zeros(weight_ih.shape[0], dtype=x.dtype)
    (w_r, w_o, w_z), (r_r, r_o, r_z) = weight_ih.chunk(3), weight_hh.chunk(3)
    (b_r, b_o, b_z), (c_r, c_o, c_z) = ((zero if b is None else b).chunk(3) for b in (bias, input_bias))
    for step in order(x, direction):
        r = gate(step @ w_r.T + h @ r_r.T + b_r + c_r)
        z = gate(step @ w_z.T + h @ r_z.T + b_z + c_z)
        if reset_after:
            o = new(step @ w_o.T + c_o + r * (h @ r_o.T + b_o))
        else:
            o = new(step @ w_o.T + c_o + b_o + (r * h) @ r_o.T)
        h = (1 - z) * o + z * h
        outputs.append(h)
    return given(outputs, output_sequence), h


def lstm_one(x, h, c, w, r, bias, peephole, sequence, activations, clip):
    gate, cell, out = (ACTIVATIONS[name] for name in activations)
    p_i, p_f, p_o = peephole.chunk(3) if peephole is not None else (0, 0, 0)
    outputs = []
    for step in x:
        i, f, o, z = (step @ w.T + h @ r.T + (0 if bias is None else bias)).chunk(4, -1)
        i, f, z = gate(i + p_i * c), gate(f + p_f * c), cell(z)
        c = f * c + i * z
        c = c if clip is None else c.clamp(-clip, clip)
        h = gate(o + p_o * c) * out(c)
        outputs.append(h)
    return outputs, h, c


def lstm(x, initial_h, initial_c, weight_ih, weight_hh, bias=None, peephole=None, weight_ih_back=None, weight_hh_back=None,
         bias_back=None, peephole_back=None, direction="forward", output_sequence=False, recurrent_activation="sigmoid",
         cell_activation="tanh", activation="tanh", clip=None):
    activations = (recurrent_activation, cell_activation, activation)
    if direction != "bidirectional":
        outputs, h, c = lstm_one(order(x, direction), initial_h, initial_c, weight_ih, weight_hh, bias, peephole,
                                 output_sequence, activations, clip)
        return given(outputs, output_sequence), h, c
    (h_f, h_b), (c_f, c_b) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    ahead, h_f, c_f = lstm_one(list(x), h_f, c_f, weight_ih, weight_hh, bias, peephole, True, activations, clip)
    back, h_b, c_b = lstm_one(list(x.flip(0)), h_b, c_b, weight_ih_back, weight_hh_back, bias_back, peephole_back, True,
                              activations, clip)
    both = lambda a, b: torch.cat([a, b], -1)
    h = both(h_f, h_b)
    return both(torch.stack(ahead), torch.stack(back[::-1])) if output_sequence else h[None], h, both(c_f, c_b)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (5, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("direction, sequence", itertools.product(["forward", "reverse"], [True, False]))
def test_rnn(sizes, direction, sequence):
    steps, batch, size, hidden = sizes
    for activation, bias in zip(ACTIVATIONS, itertools.cycle([True, False])):
        options = {"direction": direction, "output_sequence": sequence, "activation": activation}
        constants = {"weight_ih": numbers(hidden, size), "weight_hh": numbers(hidden, hidden)}
        constants |= {"bias": numbers(hidden)} if bias else {}
        check(mb.rnn, lambda **values: rnn(**values, **options),
              {"x": numbers(steps, batch, size), "initial_h": numbers(batch, hidden)}, constants, **options)


@pytest.mark.parametrize("direction, sequence", itertools.product(["forward", "reverse"], [True, False]))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("biases", [(), ("bias",), ("bias", "input_bias"), ("input_bias",)], ids=str)
def test_gru(direction, sequence, after, biases):
    steps, batch, size, hidden = 4, 3, 2, 5
    constants = {"weight_ih": numbers(3 * hidden, size), "weight_hh": numbers(3 * hidden, hidden)}
    constants |= {name: numbers(3 * hidden) for name in biases}
    for gate, activation in (("sigmoid", "tanh"), ("tanh", "sigmoid"), ("hard_sigmoid", "relu")):
        options = {"direction": direction, "output_sequence": sequence, "recurrent_activation": gate, "activation": activation,
                   "reset_after": after}
        check(mb.gru, lambda **values: gru(**values, **options),
              {"x": numbers(steps, batch, size), "initial_h": numbers(batch, hidden)}, constants, **options)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("extras", [(), ("bias",), ("bias", "peephole"), ("peephole",)], ids=str)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_lstm(direction, sequence, extras, clip):
    steps, batch, size, hidden = 5, 2, 3, 4
    rows = {"weight_ih": (4 * hidden, size), "weight_hh": (4 * hidden, hidden), "bias": (4 * hidden,), "peephole": (3 * hidden,)}
    ends = ["", "_back"] if direction == "bidirectional" else [""]
    constants = {name + end: numbers(*rows[name]) for end in ends for name in ("weight_ih", "weight_hh", *extras)}
    inputs = {"x": numbers(steps, batch, size), "initial_h": numbers(batch, hidden * len(ends)),
              "initial_c": numbers(batch, hidden * len(ends))}
    options = {"direction": direction, "output_sequence": sequence}

    def op(**values):
        # it must have the type of x
        more = {} if clip is None else {"clip": types.nptype_from_builtin(values["x"].dtype)(clip)}
        return mb.lstm(**values, **more)
    check(op, lambda **values: lstm(**values, **options, clip=clip), inputs, constants, **options)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_lstm(activation):
    hidden, size = 4, 3
    constants = {"weight_ih": numbers(4 * hidden, size), "weight_hh": numbers(4 * hidden, hidden)}
    inputs = {"x": numbers(3, 2, size), "initial_h": numbers(2, hidden), "initial_c": numbers(2, hidden)}
    for param in ("recurrent_activation", "cell_activation", "activation"):
        options = {param: activation, "output_sequence": True}
        check(mb.lstm, lambda **values: lstm(**values, **options), inputs, constants, **options)


def test_lstm_is_torchs():
    """One that others have written: gates are in another order there."""
    layer = torch.nn.LSTM(6, 5, bidirectional=True).double()
    reorder = lambda name: np.concatenate([getattr(layer, name).detach().chunk(4)[i].numpy() for i in (0, 1, 3, 2)]).astype(np.float32)
    constants = {}
    for end, back in (("", ""), ("_reverse", "_back")):
        constants |= {f"weight_ih{back}": reorder(f"weight_ih_l0{end}"), f"weight_hh{back}": reorder(f"weight_hh_l0{end}"),
                      f"bias{back}": reorder(f"bias_ih_l0{end}") + reorder(f"bias_hh_l0{end}")}
    inputs = {"x": numbers(7, 3, 6), "initial_h": numbers(3, 10), "initial_c": numbers(3, 10)}

    def expected(x, initial_h, initial_c):
        split = lambda value: torch.stack(torch.tensor(value).chunk(2, -1))
        with torch.no_grad():
            outputs, (h, c) = layer(torch.tensor(x), (split(initial_h), split(initial_c)))
        join = lambda value: torch.cat(list(value), -1).numpy()
        return outputs.numpy(), join(h), join(c)
    mil.check(lambda **values: mb.lstm(**values, **constants, direction="bidirectional", output_sequence=True), inputs, expected)


def test_gru_that_resets_after_is_torchs():
    layer = torch.nn.GRU(6, 5).double()
    reorder = lambda name: np.concatenate([getattr(layer, name).detach().chunk(3)[i].numpy() for i in (0, 2, 1)]).astype(np.float32)
    constants = {"weight_ih": reorder("weight_ih_l0"), "weight_hh": reorder("weight_hh_l0"), "bias": reorder("bias_hh_l0"),
                 "input_bias": reorder("bias_ih_l0")}

    def expected(x, initial_h):
        with torch.no_grad():
            outputs, h = layer(torch.tensor(x), torch.tensor(initial_h)[None])
        return outputs.numpy(), h[0].numpy()
    mil.check(lambda **values: mb.gru(**values, **constants, reset_after=True, output_sequence=True),
              {"x": numbers(7, 3, 6), "initial_h": numbers(3, 5)}, expected)
