"""How a call of the Python package is registered, and what is kept of what it gives."""

import json

import torch

THREADS = (1, 2, 7)
CALLS = {}  # kind/name -> call; a call takes the folder of the inputs and its own, in which it runs


def case(kind, name, call):
    CALLS[f"{kind}/{name}"] = call


def store(folder, name, state):
    """Names, dtypes, shapes and bytes of a state dict, in its order."""
    with open(folder / name, "wb") as file:
        for key, tensor in state.items():
            file.write(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def shown(folder, report):
    (folder / "report.json").write_text(json.dumps(dict(report.items()), default=str, indent=1))
    (folder / "report.txt").write_text(repr(report))


def data():
    """The same batches of images and labels in every call."""
    random = torch.Generator().manual_seed(0)
    return [(torch.rand(8, 1, 8, 8, generator=random), torch.randint(0, 10, (8,), generator=random)) for _ in range(4)]


def net(make):
    """A small network, the same one in every call."""
    torch.manual_seed(3)
    return make().eval()
