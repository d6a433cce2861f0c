"""The temperature that is found by the weight: by its definition, whatever the weight's scale, kept with the state, and what it is good for."""

import copy
import math

import numpy as np
import pytest
import torch
from palettizer.torch.palettization import FakePalettize
from palettizer.torch.palettization._soft.kernels import NativeSoftKMeans
from palettizer.torch.palettization._soft.settings import SoftSettings
from torch import nn
from torch.nn.utils import prune
from torch_support import chars, dkm

GROUPS = {"granularity": "per_grouped_channel", "group_size": 8}


def one(**options):
    """The palettizer of a matrix of 16 × 32, the model, and what makes the soft weight."""
    torch.manual_seed(4)
    palettizer, model = dkm.prepared(nn.Sequential(nn.Linear(32, 16)), **{"n_bits": 2, **options})
    return palettizer, model, model[0].weight_fake_quant


def half_of_the_error(vectors, table):
    """Half of the mean squared error of an element, of vectors at their nearest centroids, in float64."""
    vectors, table = vectors.double(), table.double()
    return 0.5 * float(torch.cdist(vectors, table).amin(1).square().mean()) / vectors.shape[1]


def test_what_it_is():
    _, model, fake = one()
    assert (fake.palett_tau, fake.prune_threshold, fake.zero_threshold) == ("auto", 0.0, 1e-9)
    model(torch.randn(2, 32))
    expected = half_of_the_error(model[0].weight.detach().reshape(-1, 1), fake.start[0])
    assert fake.palett_tau == pytest.approx(expected, rel=1e-5)


def test_every_table_has_its_own():
    _, model, fake = one(**GROUPS)
    with torch.no_grad():
        model[0].weight[8:] *= 20
    model(torch.randn(2, 32))
    blocks = model[0].weight.detach().split(8)
    expected = [half_of_the_error(block.reshape(-1, 1), table) for block, table in zip(blocks, fake.start)]
    assert fake.palett_tau == pytest.approx(expected, rel=1e-5)


def test_it_is_of_the_scaled_weight_and_of_elements():
    _, model, fake = one(enable_per_channel_scale=True, cluster_dim=2)
    model(torch.randn(2, 32))
    scaled = model[0].weight.detach() / fake.scale[:, None]
    pairs = scaled.reshape(8, 2, 32).transpose(1, 2).reshape(-1, 2)
    assert fake.palett_tau == pytest.approx(half_of_the_error(pairs, fake.start[0]), rel=1e-5)


def test_a_number_is_a_number():
    _, model, fake = one(palett_tau=0.25, prune_threshold=0.5, zero_threshold=0.125)
    model(torch.randn(2, 32))
    assert (fake.palett_tau, fake.prune_threshold, fake.zero_threshold) == (0.25, 0.5, 0.125)
    assert "temperature" not in dict(fake.named_buffers())


def test_a_held_zero_is_not_favoured_and_takes_what_is_nearest():
    _, model, fake = one(enforce_zero=True)
    assert 0 < fake.prune_threshold < 1e-37
    model(torch.randn(2, 32))
    assert 50 < int((model.eval()[0].weight_fake_quant(model[0].weight) == 0).sum()) < 300


def test_it_is_found_once_at_the_milestone():
    palettizer, model, fake = one(milestone=1)
    batches = dkm.batches(6, width=32)
    dkm.train(model, batches[:2], palettizer=palettizer)
    assert fake.palett_tau == "auto"
    before = model[0].weight.detach().clone()
    dkm.train(model, batches[2:3], palettizer=palettizer)
    found = fake.palett_tau
    assert found == pytest.approx(half_of_the_error(before.reshape(-1, 1), fake.start[0]), rel=1e-5)
    dkm.train(model, batches[3:], palettizer=palettizer)
    assert fake.palett_tau == found and not torch.equal(model[0].weight, before)


def test_evaluation_before_training_does_not_change_it():
    found = []
    for first in (False, True):
        _, model, fake = one()
        if first:
            model.eval()(torch.ones(2, 32))
            assert fake.palett_tau == "auto"
        model.train()(torch.ones(2, 32))
        found.append(fake.palett_tau)
    assert found[0] == found[1]


def test_a_checkpoint_of_before_it_was_kept_is_loaded_and_goes_on():
    _, model, fake = one()
    model(torch.ones(2, 32))
    state = model.state_dict()
    del state["0.weight_fake_quant.temperature"]
    kept = copy.deepcopy(state)
    _, other, resumed = one()
    other.load_state_dict(state)
    assert list(state) == list(kept) and resumed.palett_tau == "auto"
    other(torch.ones(2, 32))
    assert resumed.palett_tau == pytest.approx(fake.palett_tau, rel=1e-5)


def test_a_number_that_is_configured_counts_against_what_was_saved():
    _, model, _ = one()
    model(torch.ones(2, 32))
    _, other, fake = one(palett_tau=0.5)
    other.load_state_dict(model.state_dict())
    other(torch.ones(2, 32))
    assert fake.palett_tau == 0.5
    _, back, fake = one()
    back.load_state_dict(other.state_dict())
    assert fake.palett_tau == "auto"


def test_narrow_buffers_keep_it():
    """A squared distance of small weights is nothing in float16."""
    _, model, fake = one()
    with torch.no_grad():
        model[0].weight *= 1e-3
    model(torch.ones(2, 32))
    found = fake.palett_tau
    assert 0 < found < 1e-9
    for dtype in (torch.float16, torch.bfloat16):
        assert copy.deepcopy(model).to(dtype)[0].weight_fake_quant.palett_tau == found


def test_pruned_weights_have_that_of_the_others():
    _, model, fake = one()
    model(torch.ones(2, 32))
    before = fake.palett_tau
    prune.l1_unstructured(model[0], "weight", 0.75)
    model(torch.ones(2, 32))
    kept = model[0].weight.detach()[model[0].weight != 0]
    assert fake.palett_tau == pytest.approx(half_of_the_error(kept[:, None], fake.start[0][1:]), rel=1e-5)
    assert fake.palett_tau != before


@pytest.mark.parametrize("weight", [torch.zeros(16, 32), torch.full((16, 32), 0.3), torch.eye(16, 32),
                                    torch.arange(512.0).reshape(16, 32).remainder(3)], ids=["0", "0.3", "eye", "three"])
@pytest.mark.parametrize("options", [{}, GROUPS, {"cluster_dim": 2}, {"enable_per_channel_scale": True}], ids=str)
def test_where_there_is_no_error(weight, options):
    """As many centroids as values, or more: something finite, from which training goes on."""
    palettizer, model, fake = one(n_bits=3, **options)
    with torch.no_grad():
        model[0].weight.copy_(weight)
    dkm.train(model, dkm.batches(3, width=32), palettizer=palettizer)
    found = fake.palett_tau if isinstance(fake.palett_tau, list) else [fake.palett_tau]
    assert all(0 < number < 1 for number in found)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_straight_through_is_the_hard_weight_with_the_gradient_of_the_weight():
    _, model, fake = one(palett_mode="ste", **GROUPS)
    weight = model[0].weight
    soft = fake(weight)
    grad = torch.randn_like(weight)
    soft.backward(grad)
    assert torch.equal(weight.grad, grad)
    assert len(soft.unique()) == 8 and torch.equal(soft.detach(), fake.eval()(weight))
    assert "temperature" not in dict(fake.named_buffers())


DISTRIBUTIONS = {
    "uniform": lambda random, n: random.uniform(-1, 1, n),
    "normal": lambda random, n: random.normal(size=n),
    "Student t3": lambda random, n: random.standard_t(3, n),
    "Laplace": lambda random, n: random.laplace(size=n),
}


STDS = (0.002, 0.02, 0.1, 0.5)
GIVEN = {"auto": {}, "fixed": dict(zip(("temperature", "prune_threshold", "floor"), dkm.THE_PEERS_NUMBERS.values()))}


def drawn(name, seed, std, shape=(80, 80)):
    """A weight of a distribution, the same but for its scale for each standard deviation."""
    numbers = DISTRIBUTIONS[name](np.random.default_rng(seed), shape)
    return torch.from_numpy(numbers * (std / numbers.std())).float()


def snr(weight, found):
    return 10 * math.log10(float(weight.double().square().sum() / (weight.double() - found.double()).square().sum()))


def lost(weight, steps=12, **settings):
    """How many dB soft k-means loses against the k-means that it starts from, when nothing but the table is trained."""
    settings = SoftSettings(**settings)
    kmeans = NativeSoftKMeans(weight.dtype, tuple(weight.shape), **settings.arguments())
    start = centroids = kmeans.seed_centroids(weight, None)
    temperatures = kmeans.temperatures(weight, start, None)
    for _ in range(steps):
        _, centroids, _ = kmeans.forward(weight, centroids, None, temperatures, 0)
    best, found = (snr(weight, kmeans.assign(weight, table, None)) for table in (start, centroids))
    return best - found


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_tables_stay_as_good_as_those_of_k_means(name, nbits):
    """Within 0.1 dB, whatever the scale; with the peer's numbers, all of small scale lose decibels."""
    for std in STDS:
        assert lost(drawn(name, nbits, std), nbits=nbits, **GIVEN["auto"]) < 0.1, std
    assert lost(drawn(name, nbits, STDS[0]), nbits=nbits, **GIVEN["fixed"]) > 2


@pytest.mark.parametrize("dim, nbits", [(2, 2), (2, 4), (4, 4), (4, 6)])
def test_tables_of_vectors_do_too(dim, nbits):
    assert lost(drawn("normal", dim, 0.02), nbits=nbits, cluster_dim=dim) < 0.1


def test_a_fake_alone_has_it():
    fake = FakePalettize((8, 8), SoftSettings(nbits=2))
    fake(torch.randn(8, 8))
    assert 0 < fake.palett_tau < 1


@pytest.fixture(scope="module")
def small_gpt():
    """A GPT of one block, trained a little, with what it was trained on and is tested by."""
    codes, test = chars.text()
    torch.manual_seed(0)
    return chars.train(chars.Gpt(32, 1), codes, 60, 1e-2), codes, test


def test_a_gpt_learns_the_same_with_smaller_weights(small_gpt):
    """Its loss is the same within 0.01; with the peer's numbers, small weights lose."""
    model, codes, test = small_gpt

    def losses(**options):
        return [chars.tested(chars.fine_tuned(dkm.ours, model, codes, 12, 1e-3, by, n_bits=3, **options), test)
                for by in (1, 4, 16)]

    found = losses()
    assert found == pytest.approx([found[0]] * 3, abs=0.01)
    given = losses(**dkm.THE_PEERS_NUMBERS)
    assert given[2] > given[0] + 0.02, given
