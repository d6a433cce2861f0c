"""Layer-wise statistics on several processes: `torchrun` runs this file as a script, and one process is the judge."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

import palettizer.torch.palettization as ours


class Block(nn.Module):
    """Two layers that share their input in samples of one kind, and do not in others."""

    def __init__(self, sharing):
        super().__init__()
        self.up, self.gate, self.down, self.sharing = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6), sharing

    def forward(self, x):
        other = x if self.sharing or x[0, 0] > 0.5 else x * 2
        return x + self.down(self.up(x) * self.gate(other))


def net(sharing):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(16, 6), nn.Sequential(Block(sharing), Block(sharing)), nn.Linear(6, 4), nn.Linear(3, 4))
    model[3].requires_grad_(False)
    return model


class Net(nn.Module):
    """Never calls its last layer."""

    def __init__(self, sharing):
        super().__init__()
        self.layers = net(sharing)

    def forward(self, x):
        return self.layers[:3](x)


def loss(model, item):
    return model(item).square().sum()


# How the model is held, whether there is a loss, whether layers share inputs, blocks, samples.
JOBS = [("whole", guided, sharing, blocks, 7) for guided in (0, 1, 2) for sharing in (True, False) for blocks in (True, False)]
JOBS += [("whole", 0, True, True, 1), ("whole", 1, False, True, 1), ("replicas", 1, True, False, 4), ("whole", 0, True, True, 0)]
JOBS += [("fully_shard", 0, True, False, 4)]

# Samples of budgets: unequally many for the processes, and none for one.
BUDGETS = (5, 1)


def work(how, guided, sharing, blocks, count):
    torch.manual_seed(0)
    items = [torch.randint(0, 16, (5,)) for _ in range(count)]
    model = Net(sharing).eval()
    if how == "fully_shard":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    if how == "replicas":
        model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    config = ours.LayerwisePalettizerConfig(
        ours.ModuleLayerwisePalettizerConfig(n_bits=2), guided_groups=max(1, guided),
        layers=r".*layers\.1\.\d" if blocks else None)
    palettizer = ours.LayerwisePalettizer(model, config)
    found = palettizer.compute_statistics(items, loss if guided else None, progress=False)
    found = {name.replace("module.", ""): value for name, value in found.items()}
    small = palettizer.compress(items, loss if guided else None, progress=False, inplace=how == "replicas")
    return found, {name.replace("module.", ""): value for name, value in small.state_dict().items()}


def chosen(count, path=None):
    """What a budget comes to, and the model that it makes; `path` is a file of statistics that all processes can read."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 16)).eval()
    model[2].weight.data *= 4
    items = [torch.randn(8, 64) for _ in range(count)]
    palettizer = ours.LayerwisePalettizer(model)
    small = palettizer.compress(items, budget=ours.Budget(target_bpw=3), statistics_path=path, progress=False)
    report = palettizer.report()
    forms = {name: row["form"] for name, row in report.items()}
    return report.budget["measured_snr_db"], forms, small.state_dict()


def done(job):
    """The tensors, or what the error says."""
    try:
        return work(*job)
    except ValueError as error:
        return str(error)


def main(out):
    dist.init_process_group("gloo")
    results = {job: done(job) for job in JOBS} | {("budget", count): chosen(count, f"{out}.{count}.safetensors") for count in BUDGETS}
    try:
        chosen(BUDGETS[0])
    except ValueError as error:
        results["no path"] = str(error)
    torch.save(results, f"{out}.{dist.get_rank()}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def together(tmp_path_factory):
    """Job -> what each of two processes makes of it."""
    out = tmp_path_factory.mktemp("distributed") / "results.pt"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*torchrun, __file__, str(out)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return [torch.load(f"{out}.{rank}") for rank in range(2)]


@pytest.mark.parametrize("job", [job for job in JOBS if job[0] != "fully_shard" and job[-1]], ids=str)
def test_two_processes_give_what_one_gives(job, together):
    found, state = together[0][job]
    other_found, other_state = together[1][job]
    expected, _ = done(("whole", *job[1:]))
    assert found.keys() == expected.keys() == other_found.keys()
    assert sum(name.startswith("layers.1.") for name in found) >= 6
    for name, value in expected.items():
        assert torch.equal(found[name], other_found[name])
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item(), msg=name)
    assert state.keys() == other_state.keys() and any("lut" in name for name in state)
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())


@pytest.mark.parametrize("count", BUDGETS)
def test_two_processes_choose_what_one_chooses(count, together):
    (snr, forms, state), (other_snr, other_forms, other_state) = (results["budget", count] for results in together)
    alone, expected, _ = chosen(count)
    assert forms == other_forms == expected and len(set(map(str, forms.values()))) > 1
    assert snr == other_snr == pytest.approx(alone, abs=1e-3)
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())


def test_what_cannot_be_is_an_error_on_all_processes(together):
    for results in together:
        assert "no samples" in results["whole", 0, True, True, 0]
        assert "sharded" in results["fully_shard", 0, True, False, 4]
        assert "statistics_path" in results["no path"]


if __name__ == "__main__":
    main(sys.argv[1])
