"""The operators of differentiable k-means, when the package is loaded again in a process, or not at one go."""

import os
import subprocess
import sys

import pytest

START = """if True:
    import importlib, sys, types, torch
    from palettizer.torch.palettization import DKMPalettizer, DKMPalettizerConfig

    def train(palettizer=None, config=None):
        palettizer, config = palettizer or DKMPalettizer, config or DKMPalettizerConfig
        net = torch.nn.Sequential(torch.nn.Linear(64, 64))
        model = palettizer(net, config.from_dict({"global_config": {"n_bits": 2}})).prepare()
        loss = model(torch.ones(2, 64)).sum()
        loss.backward()
        assert model[0].weight.grad.abs().sum() > 0
        return model

    def ours():
        return sorted(name for name in sys.modules if name.split(".")[0] == "palettizer")
"""
WAYS = {
    "the module of operators is reloaded": """
    train()
    import palettizer.torch.palettization._soft.operators as operators
    importlib.reload(operators)
    train()
    """,
    "every module is reloaded, then imported again": """
    train()
    for name in ours():
        importlib.reload(sys.modules[name])
    for name in ours():
        del sys.modules[name]
    import palettizer.torch.palettization as again
    train(again.DKMPalettizer, again.DKMPalettizerConfig)
    """,
    "the package is purged and imported again, and both are used": """
    model = train()
    loss = model(torch.ones(2, 64)).sum()
    for name in ours():
        del sys.modules[name]
    import palettizer.torch.palettization as again
    train(again.DKMPalettizer, again.DKMPalettizerConfig)
    loss.backward()
    model(torch.ones(2, 64)).sum().backward()
    train()
    """,
    "an interrupt in the middle of the first import": """
    for where in ("register_autograd", "Library.impl", "Library.define"):
        owner = torch.library.Library if "." in where else torch.library
        name = where.rpartition(".")[2]
        whole = getattr(owner, name)
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt
        setattr(owner, name, interrupted)
        try:
            train()
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("the interrupt was lost")
        setattr(owner, name, whole)
    train()
    """,
    "a module whose __getattr__ gives everything": """
    odd = types.ModuleType("odd")
    odd.__getattr__ = lambda name: type(name, (), {})
    sys.modules["odd"] = odd
    train()
    del sys.modules["odd"]
    train()
    """,
    "compiled code after a reload": """
    run = torch.compile(train(), backend="aot_eager")
    run(torch.ones(2, 64)).sum().backward()
    import palettizer.torch.palettization._soft.operators as operators
    importlib.reload(operators)
    run(torch.ones(2, 64)).sum().backward()
    """,
}
if hasattr(os, "fork"):
    WAYS["a fork"] = """
    import os
    train()
    child = os.fork()
    if child == 0:
        train()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """


@pytest.mark.parametrize("way", WAYS)
def test_training_works_after(way):
    subprocess.run([sys.executable, "-c", START + WAYS[way]], check=True, timeout=300)
