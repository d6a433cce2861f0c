"""The library in a process: Ctrl-C, threads, other Python threads meanwhile, forks, progress."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import palettizer.coreml as cto
from palettizer import _native

INTERRUPTED = """
import signal, sys, time
import numpy as np
from palettizer import _native

signal.signal(signal.SIGINT, signal.default_int_handler)
values = np.random.default_rng(0).normal(size=(4096, {width})).astype(np.float32)
print("ready", flush=True)
start = time.monotonic()
try:
    while time.monotonic() - start < 60:
        {work}
    print("done")
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - start, flush=True)
    small = values[:8, :8].copy()
    _native.palettize(small.view(np.uint8).reshape(-1), "f32", small.shape, nbits=2)  # it works as before
    print("alive")
"""

WORK = {
    "vectors": '_native.palettize(values.view(np.uint8).reshape(-1), "f32", values.shape, nbits=8, cluster_dim=4, output_axis=0)',
    "groups": '_native.palettize(values.view(np.uint8).reshape(-1), "f32", values.shape, nbits=8, exact=True, '
              'granularity="per_grouped_channel", group_size=16, channel_axis=0)',
    "checkpoint": '_native.Checkpoint.open(sys.argv[1]).compress_to({"global_config": {"mode": "kmeans", "nbits": 8, "cluster_dim": 4, '
                  '"granularity": "per_tensor", "enable_per_channel_scale": False, "weight_threshold": 0}}, sys.argv[2])',
}


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c(work, tmp_path):
    from safetensors.numpy import save_file

    values = np.random.default_rng(1).normal(size=(1024, 1024)).astype(np.float32)
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({f"{index}.weight": values + index for index in range(32)}, source)
    script = INTERRUPTED.format(width=1024, work=WORK[work])
    process = subprocess.Popen([sys.executable, "-c", script, source, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(1.0)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.stdout.readline()
    took = time.monotonic() - sent
    rest = process.stdout.read()  # communicate() would miss what readline() has read ahead
    process.wait(timeout=60)
    assert said.startswith("interrupted") and took < 2.0, f"{said!r} after {took:.2f} s"
    assert rest == "alive\n" and process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"], "something unfinished was left"


def test_other_threads_run_meanwhile():
    """The interpreter's lock is free during the work: another thread of Python goes on."""
    values = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    steps, end = [0], threading.Event()

    def count():
        while not end.is_set():
            steps[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    start, before = time.monotonic(), steps[0]
    _native.palettize(values.view(np.uint8).reshape(-1), "f32", values.shape, nbits=8, exact=True, threads=1)
    took, after = time.monotonic() - start, steps[0]
    end.set()
    counter.join()
    assert took > 0.05, "too quick to tell"
    assert after - before > took / 0.001 / 20


def test_called_from_many_threads():
    values = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    data, made = values.view(np.uint8).reshape(-1), []

    def work(threads):
        palette = _native.palettize(data, "f32", values.shape, nbits=4, threads=threads)
        made.append(palette.indices.tobytes() + palette.entries().tobytes())

    workers = [threading.Thread(target=work, args=(1 + index % 3,)) for index in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == 12 and len(set(made)) == 1


def _in_a_fork(data, shape, queue):
    queue.put(_native.palettize(data, "f32", shape, nbits=4).indices.tobytes())


def test_after_a_fork():
    """A child has none of the parent's threads; its own do the work."""
    values = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    data = values.view(np.uint8).reshape(-1)
    expected = _native.palettize(data, "f32", values.shape, nbits=4).indices.tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_fork, args=(data, values.shape, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.join(10)
        child.kill()


def test_progress():
    """Told on the calling thread, all of it, once; what a listener raises ends the work."""
    told = []

    class Listener:
        def start(self, weights, bytes):
            told.append((threading.current_thread(), "start", weights, bytes))

        def advance(self, name, bytes):
            told.append((threading.current_thread(), "advance", name, bytes))

        def finish(self):
            told.append((threading.current_thread(), "finish"))

    config = {"global_config": {"mode": "kmeans", "nbits": 4, "granularity": "per_tensor", "cluster_dim": 1,
                                "enable_per_channel_scale": False, "weight_threshold": 2048}}
    model = _native.Model.demo()
    model.palettize(config, progress=Listener())
    assert {one[0] for one in told} == {threading.current_thread()}
    steps = [one[1:] for one in told]
    assert steps[0][:2] == ("start", 3) and steps[-1] == ("finish",) and len(steps) == 5
    assert sum(step[2] for step in steps[1:-1]) == steps[0][2]

    class Stop(Exception):
        pass

    class Impatient(Listener):
        def start(self, weights, bytes):
            raise Stop

    with pytest.raises(Stop):
        model.palettize(config, progress=Impatient())
    with pytest.raises(AttributeError, match="start"):
        model.palettize(config, progress=object())


def test_a_bar_where_there_is_tqdm(capfd, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "")
    import tqdm

    shown = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **options):
            shown.append(options["desc"])
            super().__init__(*args, **options)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
    small = cto.palettize_weights(cto.demo(), config)
    cto.decompress_weights(small)
    assert len(shown) == 2
    cto.palettize_weights(cto.demo(), config, progress=False)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    cto.palettize_weights(cto.demo(), config)
    assert len(shown) == 2
