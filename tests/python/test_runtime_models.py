"""Whole networks with random weights, converted by coremltools and run here: outputs equal torch's, in fp32 and in fp16."""

import copy

import coremltools as ct
import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

import palettizer.coreml as cto
from palettizer import _native
from palettizer.runtime import Session

IMAGE = (1, 3, 64, 64)


def vision(name, shape=IMAGE, **options):
    return lambda: (torchvision.models.get_model(name, weights=None, **options), [torch.randn(shape)])


def image_model(name, shape=IMAGE, **options):
    return lambda: (timm.create_model(name, pretrained=False, **options), [torch.randn(shape)])


class Named(nn.Module):
    """The first output of a transformers model, of positional inputs."""

    def __init__(self, model, *names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        return self.model(**dict(zip(self.names, inputs)), return_dict=False)[0]


def picture(model_class, config, shape=(1, 3, 32, 32)):
    return lambda: (Named(getattr(transformers, model_class)(config()), "pixel_values"), [torch.randn(shape)])


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.layer = getattr(nn, kind)(12, 16, batch_first=True, **options)
        self.head = nn.Linear(16 * (2 if options.get("bidirectional") else 1), 5)

    def forward(self, x):
        return self.head(self.layer(x)[0])


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 4, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(0.1))
        self.up = nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        one = self.down(x)
        two = self.deep(one)
        two = nn.functional.interpolate(two, scale_factor=2.0, mode="bilinear", align_corners=False)[:, :8]
        return torch.softmax(self.out(torch.cat([one, self.up(self.deep(one)) + two], 1)), 1)


class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 16, 32, 4, 14), nn.ReLU(), nn.BatchNorm1d(16), nn.MaxPool1d(2), nn.Conv1d(16, 32, 9, dilation=2, padding="same"),
            nn.ELU(), nn.AvgPool1d(2), nn.ConvTranspose1d(32, 8, 4, 2, 1), nn.PReLU(8), nn.AdaptiveAvgPool1d(5), nn.Flatten(), nn.Linear(40, 7))

    def forward(self, x):
        return self.layers(x)


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 8, 3, groups=2), nn.Hardswish())

    def forward(self, x):
        return self.layers(x).mean((2, 3, 4))


# name -> a function that makes the network and its inputs
MODELS = {
    "alexnet": vision("alexnet"),
    "convnext_tiny": vision("convnext_tiny"),
    "densenet121": vision("densenet121"),
    "efficientnet_b0": vision("efficientnet_b0"),
    "googlenet": vision("googlenet", init_weights=False, aux_logits=False),
    "mnasnet0_5": vision("mnasnet0_5"),
    "mobilenet_v2": vision("mobilenet_v2"),
    "mobilenet_v3_small": vision("mobilenet_v3_small"),
    "regnet_y_400mf": vision("regnet_y_400mf"),
    "resnet18": vision("resnet18"),
    "resnet50": vision("resnet50"),
    "squeezenet1_1": vision("squeezenet1_1"),
    "vgg11_bn": lambda: (torchvision.models.vgg11_bn().features, [torch.randn(IMAGE)]),  # its classifier is alexnet's, with 124 M weights
    "timm_ghostnet_050": image_model("ghostnet_050"),
    "timm_mixer_s32": image_model("mixer_s32_224", shape=(1, 3, 224, 224), num_classes=0),
    "timm_poolformer_s12": image_model("poolformer_s12"),
    "timm_repvgg_a0": image_model("repvgg_a0"),
    "timm_resnet10t": image_model("resnet10t", zero_init_last=False),
    "transformers_vit": picture("ViTModel", lambda: transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8)),
    "transformers_resnet": picture("ResNetModel", lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")),
    "lstm": lambda: (Recurrent("LSTM", num_layers=2, bidirectional=True), [torch.randn(1, 9, 12)]),
    "gru": lambda: (Recurrent("GRU"), [torch.randn(1, 9, 12)]),
    "rnn": lambda: (Recurrent("RNN"), [torch.randn(1, 9, 12)]),
    "unet": lambda: (UNet(), [torch.rand(1, 3, 16, 16)]),
    "sound": lambda: (Sound(), [torch.randn(1, 1, 512)]),
    "volume": lambda: (Volume(), [torch.randn(1, 1, 8, 8, 8)]),
}


def settle(model, inputs):
    """Statistics of batch norms as after training: with those of a new network, deep ones give next to nothing."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        model.train()
        with torch.no_grad():
            model(*[torch.cat([x, torch.randn(7, *x.shape[1:])]) for x in inputs])


def converted(make):
    """The inputs of the network, its outputs in fp32 and in torch's own fp16, and what converts it by coremltools to a precision."""
    torch.manual_seed(0)
    model, inputs = make()
    settle(model, inputs)
    model.eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, inputs, strict=False)
        wanted = model(*inputs)
        half = copy.deepcopy(model).half()(*[x.half() if x.is_floating_point() else x for x in inputs])
    specs = [ct.TensorType(f"x{at}", x.shape, dtype=np.int32 if x.dtype == torch.long else np.float32) for at, x in enumerate(inputs)]
    convert = lambda precision: ct.convert(
        traced, inputs=specs, outputs=[ct.TensorType("y", dtype=np.float32)], convert_to="mlprogram", skip_model_load=True,
        minimum_deployment_target=ct.target.iOS18, compute_precision=precision)
    return {f"x{at}": x.numpy() for at, x in enumerate(inputs)}, wanted.numpy(), half.float().numpy(), convert


def snr(wanted, found):
    return 10 * np.log10((wanted.astype(np.float64)**2).sum() / ((wanted.astype(np.float64) - found)**2).sum())


@pytest.mark.parametrize("name", MODELS)
def test_gives_what_torch_gives(name):
    inputs, wanted, half, convert = converted(MODELS[name])
    found = Session(convert(ct.precision.FLOAT32)).predict(inputs)["y"]
    assert found.shape == wanted.shape and found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max() + 1e-6

    # how much rounding to fp16 does to a network of random weights is the network's; torch's fp16 has it, too
    usual = min(60, snr(wanted, half))
    package = convert(ct.precision.FLOAT16)
    for precision in ("exact", "fast"):
        found = Session(package, precision=precision).predict(inputs)["y"]
        assert snr(wanted, found) > usual - 4, (precision, snr(wanted, found), usual)


def constants_of(path, model):
    """(constant, parameter, whether one is the other's transpose) where a constant of the program is a weight of the network."""
    native = _native.Model.open(path)
    parameters = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    for weight in cto.load(path).weights(0):
        if weight["dtype"] != "fp32" or len(weight["shape"]) < 2:
            continue
        _, shape, values = native.weight_values(weight["name"])
        values = torch.tensor(values.view(np.float32).reshape(shape))
        for parameter in parameters:
            for turned in (False, True):
                other = parameter.detach().float()
                other = other.transpose(0, 1) if turned else other
                if other.shape == values.shape and torch.equal(other, values):
                    yield weight["name"], parameter, turned
                    break


# network -> how many of its weights are constants of the program as they are
GRADIENTS = {"mobilenet_v3_small": 54, "squeezenet1_1": 26, "timm_resnet10t": 15, "transformers_vit": 15, "unet": 4, "lstm": 1}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_torch(name, tmp_path):
    """Of a random projection of the outputs, with respect to the input and to every weight that the conversion left as it is."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    settle(model, inputs)
    model.eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, inputs, strict=False)
    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes({"common::fuse_conv_batchnorm"})  # weights stay those of the network
    package = ct.convert(traced, inputs=[ct.TensorType("x0", inputs[0].shape)], outputs=[ct.TensorType("y")], convert_to="mlprogram",
                         skip_model_load=True, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32,
                         pass_pipeline=passes)
    package.save(str(tmp_path / "model.mlpackage"))
    found = list(constants_of(tmp_path / "model.mlpackage", model))
    assert len(found) == GRADIENTS[name]

    exact = model.double()
    x = inputs[0].double().requires_grad_()
    y = exact(x)
    factors = torch.randn(y.shape)
    wanted = torch.autograd.grad((y * factors).sum(), [x, *(parameter for _, parameter, _ in found)])
    names = ["x0", *(constant for constant, _, _ in found)]
    done = Session(tmp_path / "model.mlpackage").grad({"x0": inputs[0].numpy()}, {"y": factors.numpy()}, names)
    for constant, gradient, turned in zip(names, wanted, [False, *(turned for _, _, turned in found)]):
        gradient = (gradient.transpose(0, 1) if turned else gradient).numpy()
        assert done.gradients[constant].shape == gradient.shape and np.abs(gradient).max() > 0
        assert snr(gradient, done.gradients[constant]) > 60, (constant, snr(gradient, done.gradients[constant]))
