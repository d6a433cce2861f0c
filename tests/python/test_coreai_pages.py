"""docs/coreai.md does what it says, with the command of the package."""

import sys

import torch
from coreai_support import program
from pages import Page
from test_pages import network


def test_coreai(tmp_path):
    folder = tmp_path / "reader"
    folder.mkdir()
    model = network().eval()
    images = torch.rand(1, 1, 8, 8)
    program(model, images).save_asset(folder / "Model.aimodel")
    command = tmp_path / "palettizer"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m palettizer._cli "$@"\n')
    command.chmod(0o755)
    (folder / "config.yaml").write_text("kmeans_palettization_config:\n  global_config:\n    op_state_spec:\n      weight:\n        n_bits: 4\n")
    assert Page("docs/coreai.md", folder, command, {"model": model, "images": images}).run() == {"sh": 1, "python": 3}
