"""`Session.grad`: losses and gradients against torch."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

import mil
from palettizer.runtime import Session

RNG = np.random.default_rng(3)
X = RNG.normal(size=(3, 5)).astype(np.float32)


def session():
    return Session(mil.model(lambda x: mb.tanh(x=x, name="y"), {"x": X}))


def tanh():
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    return x, torch.tanh(x)


def close(found, loss, x):
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    np.testing.assert_allclose(found.gradients["x"], x.grad.numpy(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.outputs["y"], np.tanh(X), rtol=1e-5)
    assert found.gradients["x"].dtype == np.float32


def test_cross_entropy():
    x, y = tanh()
    close(session().grad({"x": X}, "cross_entropy", "x", labels=[0, 4, 2]), torch.nn.functional.cross_entropy(y, torch.tensor([0, 4, 2])), x)


def test_mse():
    x, y = tanh()
    target = RNG.normal(size=(3, 5))
    loss = torch.nn.functional.mse_loss(y, torch.tensor(target.astype(np.float32), dtype=torch.float64))
    close(session().grad({"x": X}, "mse", ["x"], target=target, output="y"), loss, x)


def test_projection():
    x, y = tanh()
    factors = RNG.normal(size=(3, 5)).astype(np.float32)
    close(session().grad({"x": X}, {"y": factors}, ["x"]), (y * torch.tensor(factors, dtype=torch.float64)).sum(), x)


def test_a_chain_of_operations():
    mil.check_gradients(lambda x: [mb.tanh(x=mb.relu(x=x)), mb.relu(x=x)],
                        lambda x: [torch.tanh(torch.relu(x)), torch.relu(x)], {"x": X})


def test_an_output_of_one_element():
    one = X[:1, :1]
    found = Session(mil.model(lambda x: mb.tanh(x=x, name="y"), {"x": one})).grad({"x": one}, "y", "x")
    assert found.gradients["x"] == pytest.approx(1 - np.tanh(one) ** 2, rel=1e-5)


BAD = [
    (("cross_entropy", "x"), {}, 'the loss "cross_entropy" needs labels'),
    (("mse", "x"), {}, 'the loss "mse" needs a target'),
    (("mse", "x"), {"target": [1.0]}, "has 15 elements, the target 1"),
    (("cross_entropy", "x"), {"labels": [0, 1]}, "has 3 rows, 2 labels are given"),
    (("cross_entropy", "x"), {"labels": [0, 1, 5]}, "has 5 classes; a label is 5"),
    (("cross_entropy", "x"), {"labels": [0, 1, -1]}, "integers from 0"),
    (("y", "x"), {}, "has 15 elements; expected one"),
    (("z", "x"), {}, 'output "z" is not one of the model\'s: y'),
    (({"y": [1.0]}, "x"), {}, "has 15 elements, 1 factors are given"),
    (({"z": [1.0]}, "x"), {}, "is not one of the model"),
    (("y", "w"), {}, '"w" is neither an input nor a constant'),
]


@pytest.mark.parametrize(("loss", "options", "message"), BAD, ids=str)
def test_losses_that_do_not_fit(loss, options, message):
    with pytest.raises(ValueError, match=message):
        session().grad({"x": X}, *loss, **options)
