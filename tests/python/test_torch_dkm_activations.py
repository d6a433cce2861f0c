"""Activations that are rounded to integers in training, by a moving average of their range."""

import pytest
import torch
from torch import nn
from torch_support import dkm
from torch_support.sides import peer

from palettizer.torch.palettization._dkm.fake_quantize import FakeQuantize


def expected(value, least, most, low, high):
    """Rounded by the definition of an affine quantization whose range holds zero."""
    least, most = min(least, 0.0), max(most, 0.0)
    scale = (most - least) / (high - low)
    zero = min(max(low - round(least / scale), low), high)
    return ((value / scale).round() + zero).clamp(low, high).sub(zero) * scale


RANGES = [(-128, 127), (0, 255), (0, 3), (-2, 1)]


@pytest.mark.parametrize("low, high", RANGES)
@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.7, 5.0])
def test_values_are_rounded_over_their_range(low, high, shift):
    torch.manual_seed(0)
    value = torch.randn(40) + shift
    made = FakeQuantize(low, high)(value)
    torch.testing.assert_close(made, expected(value, value.min().item(), value.max().item(), low, high))
    assert len(made.unique()) <= high - low + 1


def test_the_range_is_the_average_that_torch_takes():
    observer = torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=0.01, dtype=torch.qint8)
    quantize = FakeQuantize(-128, 127)
    for batch in range(5):
        value = torch.randn(20, generator=torch.Generator().manual_seed(batch)) * (batch + 1)
        observer(value)
        quantize(value)
        assert (quantize.min_val, quantize.max_val) == (observer.min_val, observer.max_val)
        scale, zero = observer.calculate_qparams()
        torch.testing.assert_close(
            quantize.eval()(value), torch.fake_quantize_per_tensor_affine(value, scale, zero, -128, 127))
        quantize.train()


def test_the_gradient_passes_within_the_range():
    quantize = FakeQuantize(-2, 1)
    quantize(torch.tensor([-2.0, 1.0]))
    value = torch.tensor([-9.0, -1.2, 0.3, 9.0], requires_grad=True)
    quantize.eval()(value).sum().backward()
    assert value.grad.tolist() == [0, 1, 1, 0]


def test_evaluation_observes_nothing():
    quantize = FakeQuantize(0, 255)
    value = torch.randn(9)
    assert torch.equal(quantize.eval()(value), value)
    quantize.train()(value)
    before = quantize.max_val.clone()
    quantize.eval()(value * 10)
    assert torch.equal(quantize.max_val, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_stays(dtype):
    quantize = FakeQuantize(-128, 127)
    value = torch.randn(9, dtype=dtype, requires_grad=True)
    quantize(value).sum().backward()
    assert quantize(value).dtype == value.grad.dtype == dtype and not quantize.max_val.isnan()
    assert quantize(value[:0]).shape == (0,)


DTYPES = {"qint8": ({}, (-128, 127)), "quint8": ({"quant_min": 0, "quant_max": 255}, (0, 255)),
          "narrow": ({"dtype": "qint8", "quant_min": -8, "quant_max": 7}, (-8, 7))}


@pytest.mark.parametrize("name", DTYPES)
def test_the_output_of_a_layer_is_quantized(name):
    options, (low, high) = DTYPES[name]
    options = {"dtype": name, **options}
    _, model = dkm.prepared(nn.Sequential(nn.Linear(16, 32)), n_bits=2, quantize_activations=True, **options)
    values = torch.randn(8, 16)
    made = model(values)
    quantize = model[0].activation_post_process
    assert (quantize.quant_min, quantize.quant_max) == (low, high) and len(made.unique()) <= high - low + 1
    plain = nn.functional.linear(values, model[0].weight_fake_quant(model[0].weight), model[0].bias)
    rounded = expected(plain, plain.min().item(), plain.max().item(), low, high)
    torch.testing.assert_close(made, rounded, atol=1e-5, rtol=0)


def test_the_output_of_attention_is_quantized_and_its_weights_are_not():
    _, model = dkm.prepared(nn.Sequential(nn.MultiheadAttention(8, 2)), n_bits=2, quantize_activations=True,
                            quant_min=-2, quant_max=1)
    values = torch.randn(5, 3, 8)
    output, weights = model[0](values, values, values)
    assert len(output.unique()) == 4 and len(weights.unique()) > 4


def test_float_activations_pass():
    _, model = dkm.prepared(dkm.mlp(), n_bits=2, quantize_activations=True, dtype=torch.float32)
    assert isinstance(model[0].activation_post_process, nn.Identity)


@pytest.mark.parametrize("options, words", [
    ({"dtype": "quint8"}, "quint8 holds 0 to 255, found quant_min -128 and quant_max 127"),
    ({"quant_max": 300}, "qint8 holds -128 to 127, found quant_min -128 and quant_max 300"),
], ids=str)
def test_a_range_that_the_dtype_has_not_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        dkm.prepared(dkm.mlp(), quantize_activations=True, **options)
    dkm.prepared(dkm.mlp(), **options)  # of no concern without


def test_finalizing_leaves_plain_layers():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2, quantize_activations=True)
    model(torch.randn(2, 16))
    done = palettizer.finalize()
    assert not any("activation" in name for name, _ in [*done.named_modules(), *done.named_buffers()])
    assert type(done[0]) is nn.Linear and done[0](torch.randn(2, 16)).dtype == torch.float32


def test_the_peer_keeps_no_quantized_activations_either():
    palettizer, model = dkm.prepared(nn.Sequential(nn.Linear(64, 64)), peer, n_bits=2, quantize_activations=True)
    model(torch.randn(2, 64))
    assert not hasattr(palettizer.finalize()[0], "activation_post_process")
