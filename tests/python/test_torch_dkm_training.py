"""Training with palettized weights: the peer's loss, and the same result however the step is carried out."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch_support import dkm
from torch_support.sides import peer

GROUPS = {"granularity": "per_grouped_channel", "group_size": 4}
LIKE_THE_PEER = [
    {"n_bits": 1}, {"n_bits": 2}, {"n_bits": 4}, {"n_bits": 2, "cluster_dim": 2, "palett_tau": 1e-3},
    {"n_bits": 2, **GROUPS}, {"n_bits": 2, **GROUPS, "percentage_palett_enable": 0.5},
    {"n_bits": 2, "enable_per_channel_scale": True},
    {"n_bits": 2, "enable_per_channel_scale": True, "per_channel_scaling_factor_scheme": "abs"},
    {"n_bits": 2, "enforce_zero": True}, {"n_bits": 2, "enforce_zero": True, "prune_threshold": 0.0},
    {"n_bits": 2, "enforce_zero": True, "prune_threshold": 1e-3}, {"n_bits": 2, "palett_mode": "hard"},
    {"n_bits": 2, "cluster_permute": (1, 0), **GROUPS}, {"n_bits": 2, "kmeans_max_iter": 1},
    {"n_bits": 2, "kmeans_max_iter": 6, "palett_epsilon": 1e-2}, {"n_bits": 2, "palett_tau": 1e-2},
    {"n_bits": 2, "zero_threshold": 1e-2}, {"n_bits": 2, "palett_cluster_tol": 0.5},
]


@pytest.mark.parametrize("options", LIKE_THE_PEER, ids=str)
def test_the_loss_is_that_of_the_peer_from_the_same_start(options):
    net = dkm.mlp()
    net[-1] = nn.Linear(32, 12)
    options = {**dkm.THE_PEERS_NUMBERS, **options}
    steps = dkm.batches(4)
    mine, model = dkm.prepared(net, **options)
    model(steps[0][0])
    theirs, other = dkm.prepared(net, peer, **options)
    dkm.same_start(model, other)
    losses = [dkm.train(one, steps, palettizer=p) for one, p in ((model, mine), (other, theirs))]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, rtol=1e-3, atol=3e-4)
    for name, fake in dkm.fakes(other).items():
        ours = dkm.fakes(model)[name].centroids
        torch.testing.assert_close(ours, torch.stack(fake.centroids), rtol=1e-3, atol=1e-5)
    values = torch.randn(4, 16)
    torch.testing.assert_close(model.eval()(values), other.eval()(values), rtol=1e-2, atol=1e-3)


class Mixed(nn.Module):
    """A layer of each kind, and one that is called twice."""

    calls = 2

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(24, 8), nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.twice, self.conv, self.back = nn.Linear(8, 8), nn.Conv1d(8, 8, 3), nn.ConvTranspose1d(8, 8, 3)
        self.head = nn.Linear(8, 10)

    def block(self, x):
        for _ in range(self.calls):
            x = self.twice(torch.tanh(x))
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.back(functional.gelu(self.conv(x.mT))).mT

    def forward(self, words):
        x = self.norm(self.embed(words))
        return self.head(self.block(x).mean(1))


class Checkpointed(Mixed):
    """The same, its block recomputed in the backward pass."""

    reentrant = False

    def block(self, x):
        return checkpoint(super().block, x, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


def mixed(kind=Mixed, dtype=torch.float32, **options):
    torch.manual_seed(0)
    palettizer, model = dkm.prepared(kind().to(dtype), **{"n_bits": 2, "palett_tau": 1e-3, **options})
    assert len(dkm.fakes(model)) == 8
    return palettizer, model


def words(count=4):
    generator = torch.Generator().manual_seed(count)
    return [(torch.randint(0, 24, (6, 5), generator=generator), torch.randint(0, 10, (6,), generator=generator))
            for _ in range(count)]


def expect_equal(model, other):
    state = other.state_dict()
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


WAYS = [{}, {"palett_mode": "hard"}, {"palett_mode": "gsm"}, {"enable_per_channel_scale": True}, {"implicit": True},
        {"lut_dtype": "i8"}, {"quantize_activations": True}, {"milestone": 1}, {"cluster_dim": 2},
        {"palett_mode": "ste"}, {"palett_tau": "auto", "enable_per_channel_scale": True, "milestone": 1}]


@pytest.mark.parametrize("kind", [Checkpointed, Reentrant])
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_checkpointing_changes_nothing(options, kind):
    results = []
    for one in (Mixed, kind):
        palettizer, model = mixed(one, **options)
        if "quantize_activations" in options:
            model.calls = 1  # what the first of two calls is quantized by is gone when it is recomputed
        torch.manual_seed(3)
        results.append((dkm.train(model, words(), palettizer=palettizer), model))
    assert results[0][0] == results[1][0]
    expect_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("options", [way for way in WAYS if "gsm" not in way.values()
                                     and "quantize_activations" not in way], ids=str)
def test_two_half_batches_make_the_step_of_a_whole_one(options):
    results = []
    for parts in (1, 2):
        palettizer, model = mixed(dtype=torch.float64, **options)
        results.append((dkm.train(model, words(), palettizer=palettizer, parts=parts), model))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-9)
    for name, value in results[0][1].state_dict().items():
        if not name.endswith("seen"):
            torch.testing.assert_close(results[1][1].state_dict()[name], value, rtol=1e-6, atol=1e-9)


def test_a_step_moves_the_centroids_on_and_a_repetition_does_not():
    _, model = dkm.prepared(dkm.mlp(), n_bits=2, palett_tau=1e-2)
    fake, weight = model[0].weight_fake_quant, model[0].weight
    seeded = fake(weight), fake.start.clone(), fake.centroids.clone()
    again = fake(weight), fake.start, fake.centroids
    assert all(torch.equal(one, other) for one, other in zip(seeded, again))
    assert not torch.equal(fake.start, fake.centroids)
    with torch.no_grad():
        weight[0, 0] += 1e-3
    fake(weight)
    assert torch.equal(fake.start, seeded[2]) and not torch.equal(fake.centroids, seeded[2])


IDLE = [{"palett_max_mem": 0.1}, {"palett_min_tsize": 1}, {"palett_unique": True}, {"palett_shard": True}, {"palett_batch_mode": True},
        {"palett_dist": True}, {"kmeans_init": "kmeans++"}, {"kmeans_opt1d_threshold": 1}, {"kmeans_batch_threshold": 1},
        {"kmeans_error_bnd": 0.5}, {"kmeans_n_init": 30}, {"palett_lambda": 0.5}, {"add_extra_centroid": True}]


@pytest.mark.parametrize("options", IDLE, ids=str)
def test_options_whose_reason_is_gone_change_nothing(options):
    results = []
    for more in ({}, options):
        palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2, palett_tau=1e-2, **more)
        results.append((dkm.train(model, dkm.batches(3), palettizer=palettizer), model))
    assert results[0][0] == results[1][0]
    expect_equal(results[0][1], results[1][1])


def test_more_starts_find_vectors_no_worse():
    """Each 10 are one search; the best is taken."""
    errors = []
    for count in (10, 100):
        _, model = dkm.prepared(dkm.mlp(), n_bits=4, cluster_dim=2, kmeans_n_init=count)
        fake, weight = model.eval()[2].weight_fake_quant, model[2].weight
        errors.append((fake(weight) - weight).double().square().sum().item())
    assert errors[1] < errors[0]


COMPILED = [*((way, "aot_eager") for way in WAYS), ({}, "inductor"), ({"quantize_activations": True}, "inductor"),
            ({"palett_mode": "gsm", "cluster_dim": 2, "milestone": 1}, "inductor")]


@pytest.mark.parametrize("options, backend", COMPILED, ids=str)
def test_a_compiled_model_is_the_same_model(options, backend):
    torch._dynamo.reset()
    results = []
    for compiled in (False, True):
        palettizer, model = mixed(**options)
        call = torch.compile(model, fullgraph=True, backend=backend) if compiled else None
        torch.manual_seed(3)
        with torch._inductor.config.patch(fallback_random=True):  # its own noise is another one
            results.append((dkm.train(model, words(3), palettizer=palettizer, call=call), model))
            model.eval()
            with torch.no_grad():
                results[-1] += ((call if compiled else model)(words(1)[0][0]),)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-3, atol=1e-4)


def test_autocast_rounds_the_products_and_not_the_weights():
    palettizer, model = mixed()
    _, twin = mixed()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(words(1)[0][0])
        assert model.twice(torch.randn(1, 8)).dtype == torch.bfloat16
    functional.cross_entropy(low.float(), words(1)[0][1]).backward()
    twin(words(1)[0][0])
    for (name, fake), other in zip(dkm.fakes(model).items(), dkm.fakes(twin).values(), strict=True):
        assert fake.centroids.dtype == torch.float32 and torch.equal(fake.centroids, other.centroids), name
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    losses = dkm.train(model, words(), palettizer=palettizer, call=torch.autocast("cpu", torch.bfloat16)(model))
    assert losses == pytest.approx(dkm.train(twin, words()), rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_other_dtypes(dtype):
    palettizer, model = mixed(dtype=dtype, enable_per_channel_scale=True)
    _, twin = mixed(enable_per_channel_scale=True)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    losses = dkm.train(model, words(), palettizer=palettizer)
    assert losses == pytest.approx(dkm.train(twin, words()), rel=1e-1 if dtype == torch.bfloat16 else 2e-2)
    assert all(fake.centroids.dtype == fake.scale.dtype == real for fake in dkm.fakes(model).values())
    assert all(parameter.dtype == parameter.grad.dtype == dtype for parameter in model.parameters())
    fake = model.twice.weight_fake_quant
    assert fake(model.twice.weight).dtype == fake.eval()(model.twice.weight).dtype == dtype


def test_a_model_may_change_its_dtype_after_it_was_prepared():
    _, model = mixed()
    model(words(1)[0][0])
    model.to(torch.bfloat16)
    assert model(words(1)[0][0]).dtype == torch.bfloat16
    assert not model.twice.weight_fake_quant.centroids.isnan().any()


RESUMED = [{}, {"milestone": 1}, {"milestone": 3}, {"enable_per_channel_scale": True}, {"quantize_activations": True},
           {"cluster_dim": 2}, {"palett_tau": "auto", "enable_per_channel_scale": True, "milestone": 1}, {"palett_mode": "ste"}]


@pytest.mark.parametrize("saved_after", ["step", "backward"])
@pytest.mark.parametrize("options", RESUMED, ids=str)
def test_a_saved_state_goes_on_bit_for_bit(options, saved_after):
    """Saved after a step, or in its middle, with half of the gradient; loaded into a model that was just prepared."""
    steps = words(6)
    palettizer, model = mixed(**options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    dkm.train(model, steps[:2], palettizer=palettizer, optimizer=optimizer)
    if saved_after == "backward":
        functional.cross_entropy(model(steps[2][0]), steps[2][1]).backward()
        optimizer.zero_grad()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    palettizer2, resumed = mixed(**options)
    optimizer2 = torch.optim.Adam(resumed.parameters(), 1e-2)
    resumed.load_state_dict(saved["model"])
    optimizer2.load_state_dict(saved["optimizer"])
    expected = dkm.train(model, steps[2:], palettizer=palettizer, optimizer=optimizer)
    assert dkm.train(resumed, steps[2:], palettizer=palettizer2, optimizer=optimizer2) == expected
    expect_equal(model, resumed)
    assert resumed.twice.weight_fake_quant.enabled


def test_a_float_checkpoint_is_loaded_before_preparing_or_not_strictly():
    palettizer, model = mixed()
    torch.manual_seed(9)
    trained = Mixed()
    with pytest.raises(RuntimeError, match="weight_fake_quant.centroids"):
        model.load_state_dict(trained.state_dict())
    model.load_state_dict(trained.state_dict(), strict=False)
    _, other = dkm.prepared(trained, n_bits=2, palett_tau=1e-3)
    assert torch.equal(model(words(1)[0][0]), other(words(1)[0][0]))


def test_an_optimizer_made_before_trains_the_prepared_model():
    model = Mixed()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    palettizer = dkm.ours.DKMPalettizer(model, dkm.config(dkm.ours, n_bits=2))
    palettizer.prepare(inplace=True)
    before = copy.deepcopy(dict(model.named_parameters()))
    dkm.train(model, words(1), palettizer=palettizer, optimizer=optimizer)
    assert all(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_frozen_weights_are_palettized_and_get_no_gradient():
    _, model = mixed()
    model.twice.weight.requires_grad_(False)
    functional.cross_entropy(model(words(1)[0][0]), words(1)[0][1]).backward()
    assert model.twice.weight.grad is None and model.head.weight.grad is not None
    assert not model.twice.weight_fake_quant.centroids.isnan().any()


def test_evaluation_seeds_what_was_never_trained_and_gives_the_weight_no_gradient():
    _, model = mixed()
    out = model.eval()(words(1)[0][0])
    seeded = model.twice.weight_fake_quant.centroids.clone()
    assert not seeded.isnan().any() and torch.equal(out, model(words(1)[0][0]))
    out.sum().backward()
    assert model.twice.weight.grad is None and model.twice.bias.grad is not None
    model.train()(words(1)[0][0])
    assert torch.equal(model.twice.weight_fake_quant.start, seeded)


def test_the_scale_is_that_of_the_first_forward_before_the_milestone():
    palettizer, model = mixed(enable_per_channel_scale=True, milestone=1)
    dkm.train(model, words(1), palettizer=palettizer)
    scale = model.twice.weight_fake_quant.scale.clone()
    assert not scale.isnan().any()
    dkm.train(model, words(3), palettizer=palettizer)
    assert torch.equal(scale, model.twice.weight_fake_quant.scale)


def test_noise_is_drawn_by_the_generator_of_torch():
    _, model = dkm.prepared(dkm.mlp(), n_bits=2, palett_mode="gsm", palett_tau=1e-2)
    fake, weight = model[0].weight_fake_quant, model[0].weight
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(fake(weight).detach())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_weights_that_do_not_lie_in_order_in_memory():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3)).to(memory_format=torch.channels_last)
    assert not net[0].weight.is_contiguous()
    straight = copy.deepcopy(net)
    straight[0].weight.data = straight[0].weight.data.contiguous()
    values = torch.randn(2, 4, 6, 6)
    grads = []
    for model in (net, straight):
        _, made = dkm.prepared(model, n_bits=2, palett_tau=1e-3)
        made(values).square().sum().backward()
        grads.append(made[0].weight.grad)
    torch.testing.assert_close(*grads)
    assert grads[0].abs().sum() > 0


@pytest.fixture
def elsewhere(monkeypatch):
    """Tensors are computed with as on devices other than the CPU."""
    from palettizer.torch.palettization._soft import kernels

    monkeypatch.setattr(kernels, "NativeSoftKMeans", kernels.TorchSoftKMeans)
    kernels.kernel.cache_clear()
    yield
    kernels.kernel.cache_clear()


@pytest.mark.parametrize("options", [way for way in WAYS if "gsm" not in way.values()], ids=str)
def test_other_devices_train_alike(options, request):
    losses = []
    for fixture in (None, "elsewhere"):
        if fixture:
            request.getfixturevalue(fixture)
        palettizer, model = mixed(dtype=torch.float64, **options)
        losses.append(dkm.train(model, words(), palettizer=palettizer))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
