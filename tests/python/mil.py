"""Operations run by us and by the peer: programs of one operation, their outputs, and gradients against torch.

A case is a function that builds an operation from its inputs with the peer's builder. Where the inputs are constants, the peer
computes the outputs itself (`value_inference`); where it has none, a test gives a function of numpy or torch.
"""

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Program, types

from palettizer.runtime import Session
from zoo import TARGETS, convert

TYPES = {
    np.dtype(np.float16): types.fp16, np.dtype(np.float32): types.fp32, np.dtype(np.int32): types.int32,
    np.dtype(np.bool_): types.bool,
}


def model(build, inputs, target="iOS18"):
    """A model of what `build(**inputs)` makes; fp16 inputs need iOS16, booleans come as int32."""
    specs = [mb.TensorSpec(value.shape, dtype=_input_type(value)) for value in inputs.values()]

    # the builder takes the names of inputs from the function's parameters
    def body(*values):
        given = [mb.cast(x=var, dtype="bool") if value.dtype == np.bool_ else var
                 for var, value in zip(values, inputs.values())]
        return build(**dict(zip(inputs, given)))
    names = ", ".join(inputs)
    scope = {"body": body}
    exec(f"def program({names}): return body({names})", scope)  # noqa: S102
    made = mb.program(input_specs=specs, opset_version=TARGETS[target])(scope["program"])
    return convert(made, target)


def _input_type(value):
    return types.int32 if value.dtype == np.bool_ else TYPES[value.dtype]


def named_outputs(build, inputs, target="iOS18", **options):
    """Our outputs by name, in the order of the program."""
    mlmodel = model(build, inputs, target)
    found = Session(mlmodel, **options).predict(_given(inputs))
    return {output.name: found[output.name] for output in mlmodel.get_spec().description.output}


def run(build, inputs, target="iOS18", **options):
    """Our outputs, in the order of the program."""
    return list(named_outputs(build, inputs, target, **options).values())


def _given(inputs):
    return {name: value.astype(np.int32) if value.dtype == np.bool_ else value for name, value in inputs.items()}


def _factors(shape, seed, output):
    """Random factors of an output's elements."""
    return np.random.default_rng([seed, output]).normal(size=shape).astype(np.float32)


def gradients(build, inputs, wrt, seed=0, target="iOS18"):
    """Our gradients with respect to inputs named in `wrt`, of the sum of all outputs' floats with random factors."""
    mlmodel = model(build, inputs, target)
    session, given = Session(mlmodel), _given(inputs)
    outputs = session.predict(given)
    names = [output.name for output in mlmodel.get_spec().description.output]
    projection = {name: _factors(outputs[name].shape, seed, at) for at, name in enumerate(names)
                  if outputs[name].dtype.kind == "f"}
    return session.grad(given, projection, wrt).gradients


def check_gradients(build, function, inputs, wrt=None, seed=0, target="iOS18", tolerance=1e-4):
    """Our gradients against torch's in float64, where `function(**inputs)` is the same of torch tensors.

    By default those of all inputs that are floats. What is not differentiable may be given as an input too: integers and
    booleans come as tensors.
    """
    wrt = [name for name, value in inputs.items() if value.dtype.kind == "f"] if wrt is None else list(wrt)
    found = gradients(build, inputs, wrt, seed, target)
    tensors = {name: torch.tensor(value.astype(np.float64) if value.dtype.kind == "f" else value)
               for name, value in inputs.items()}
    for name in wrt:
        tensors[name].requires_grad_()
    outputs = function(**tensors)
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    total = sum((output * torch.tensor(_factors(tuple(output.shape), seed, at), dtype=torch.float64)).sum()
                for at, output in enumerate(outputs) if output.is_floating_point())
    expected = torch.autograd.grad(total, [tensors[name] for name in wrt], materialize_grads=True)
    for name, wanted in zip(wrt, expected):
        wanted = wanted.numpy()
        assert found[name].shape == wanted.shape, (name, found[name].shape, wanted.shape)
        largest = np.abs(wanted).max(initial=0)
        wrong = np.abs(found[name] - wanted).max(initial=0)
        assert wrong <= tolerance * largest + 1e-6, f"the gradient of {name} is off by {wrong}; its largest value is {largest}"
    return found


def inferred(build, inputs, target="iOS18"):
    """What the peer computes when the inputs are constants, or None where it does not."""
    program = Program()
    found = []

    @mb.program(input_specs=[], opset_version=TARGETS[target])
    def constants():
        outputs = build(**{name: mb.const(val=value) for name, value in inputs.items()})
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        found.extend(output.val for output in outputs)
        return outputs
    del program, constants
    return None if any(value is None for value in found) else [np.asarray(value) for value in found]


def assert_close(found, expected, ulps=2):
    """fp16 to a few units in the last place, fp32 to 1e-5 of the largest value, all else exactly."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected.astype(found.dtype))
        return
    wide = expected.astype(np.float64)
    finite = np.isfinite(wide)
    np.testing.assert_array_equal(found[~finite], wide[~finite].astype(found.dtype))
    largest = np.abs(wide[finite]).max(initial=0)
    if found.dtype == np.float16:
        room = ulps * np.spacing(np.abs(wide[finite]).astype(np.float16)).astype(np.float64)
        room = np.maximum(room, 1e-5 * largest)
    else:
        room = 1e-5 * np.maximum(np.abs(wide[finite]), largest * 0.1) + 1e-7
    wrong = np.abs(found[finite].astype(np.float64) - wide[finite]) - room
    assert (wrong <= 0).all(), f"off by {wrong.max()} more than allowed; largest value {largest}"


def check(build, inputs, expected=None, target="iOS18", ulps=2):
    """Our outputs against `expected(**inputs)` (in float64 where they are floats), or against the peer's own."""
    named = named_outputs(build, inputs, target)
    if expected is None:
        wanted = inferred(build, inputs, target)
        assert wanted is not None, "the peer has no value for this: give a function"
    else:
        wide = {name: value.astype(np.float64) if value.dtype.kind == "f" else value for name, value in inputs.items()}
        wanted = expected(**wide)
        wanted = wanted if isinstance(wanted, (tuple, list)) else [wanted]
    assert len(named) == len(wanted)
    for at, ((name, one), other) in enumerate(zip(named.items(), wanted)):
        try:
            assert_close(one, other, ulps)
        except AssertionError as error:
            error.add_note(f"output {at}, which the program calls {name}")
            raise
    return list(named.values())


def together(cases):
    """One case of several, for a model takes longer to make than its operations to run.

    A case is what builds an operation, its inputs, and a function of torch tensors that does the same.
    """
    def parts(values):
        for at, (build, inputs, function) in enumerate(cases):
            yield build, function, {name: values[f"{name}_{at}"] for name in inputs}

    def build(**values):
        return [output for one, _, given in parts(values) for output in _several(one(**given))]

    def function(**values):
        return [output for _, one, given in parts(values) for output in _several(one(**given))]
    inputs = {f"{name}_{at}": value for at, (_, given, _) in enumerate(cases) for name, value in given.items()}
    return build, inputs, function


def _several(outputs):
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def check_cases(cases, target="iOS18", ulps=2, differentiable=False):
    """The outputs of cases as of `together`, in float64, and their gradients if they are said to have some."""
    build, inputs, function = together(cases)

    def of_arrays(**values):
        outputs = function(**{name: torch.tensor(value) for name, value in values.items()})
        return [np.asarray(output) for output in outputs]
    check(build, inputs, of_arrays, target, ulps)
    if differentiable:
        check_gradients(build, function, inputs, target=target)
