"""Where PyTorch's files go: sensitivities, stored models and parts are written staged their place, and nothing is lost."""

import os
import signal
import stat
import subprocess
import sys

import pytest
import torch
from torch import nn

from palettizer import _native
from palettizer.distributed._parts import parts_folder, put
from palettizer.torch import save_safetensors
from palettizer.torch.palettization import SKMPalettizer, SKMPalettizerConfig
from palettizer.torch.palettization._io.safetensors import check_place, save

LONG = 255 * "n"


def store(path):
    save_safetensors(nn.Linear(4, 4), path)


def sensitivities(path):
    save({"weight": torch.ones(2, 2)}, path)


WRITERS = [store, sensitivities, lambda path: put(b"part", path)]


@pytest.fixture(params=WRITERS, ids=["store", "sensitivities", "part"])
def write(request):
    return request.param


def test_a_link_is_followed_and_permissions_stay(write, tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there/real.safetensors", tmp_path / "link.safetensors"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(link)
    assert link.is_symlink() and real.read_bytes() != b"old" and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [path.name for path in real.parent.iterdir()] == [real.name]


def test_a_new_file_has_the_permissions_of_any_other(write, tmp_path):
    (tmp_path / "other").write_text("")
    write(tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("what", ["pipe", "dangling", "folder"])
def test_what_is_no_file_stays(write, what, tmp_path):
    path = tmp_path / "s.safetensors"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "dangling":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
    before = path.lstat()
    with pytest.raises(OSError, match=path.name):
        write(path)
    with pytest.raises(OSError, match=path.name):
        check_place(path)
    assert path.lstat() == before and list(tmp_path.iterdir()) == [path]


def test_sensitivities_are_refused_before_they_are_computed(tmp_path):
    os.mkfifo(tmp_path / "s.safetensors")
    palettizer = SKMPalettizer(nn.Linear(4, 4), SKMPalettizerConfig())
    with pytest.raises(OSError, match="pipe"):
        palettizer.compute_sensitivity([], lambda *_: pytest.fail("computed"), str(tmp_path / "s.safetensors"))


def test_long_names_and_names_that_are_no_text(write, tmp_path):
    for name in (LONG[12:] + ".safetensors", os.fsdecode(b"\xff\xfe.safetensors")):
        write(tmp_path / name)
        write(tmp_path / name)
        (tmp_path / name).unlink()
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_what_was_there(tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_text("old")
    with pytest.raises(KeyError), _native.StagedOutput(path, overwrite=True) as built:
        built.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        _native.StagedOutput(path)
    staged = _native.StagedOutput(path, overwrite=True)
    with staged as built:
        built.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="already"):
        staged.__enter__()


def test_parts_go_and_what_is_the_users_stays(tmp_path):
    out = tmp_path / "a.safetensors"
    with parts_folder(out) as folder:
        put(b"part", folder / f"{32 * '0'}.safetensors")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.safetensors.parts").mkdir()
    mine = tmp_path / "a.safetensors.parts/mine.safetensors"
    mine.write_text("mine")
    with parts_folder(out) as folder:
        put(b"part", folder / f"{32 * '0'}.safetensors")
    assert mine.read_text() == "mine" and list(mine.parent.iterdir()) == [mine]
    with parts_folder(tmp_path / LONG) as folder:
        assert folder.is_dir()


HELD = """
import sys, time
from palettizer import _native
with _native.StagedOutput(sys.argv[1], overwrite=True) as built:
    built.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_killed_run_is_cleared_up_and_a_live_one_is_not_disturbed(tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_text("old")
    runs = [subprocess.Popen([sys.executable, "-c", HELD, path], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        assert [run.stdout.readline() for run in runs] == ["ready\n", "ready\n"]
        assert len(list(tmp_path.iterdir())) == 3
        runs[0].send_signal(signal.SIGKILL)
        runs[0].wait(60)
        assert path.read_text() == "old"
        sensitivities(tmp_path / "other.safetensors")
        assert len(list(tmp_path.iterdir())) == 3, "the live run's folder, and two files"
    finally:
        for run in runs:
            run.kill()
            run.wait(60)
    sensitivities(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other.safetensors", "s.safetensors"]
