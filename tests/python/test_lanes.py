"""Processes that share the tests run each once."""

import random
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

from lanes import LONGEST, shared

HERE = Path(__file__).parent


def test_each_is_run_once_and_files_are_whole(tmp_path):
    items = [SimpleNamespace(path=path, number=number) for path in sorted(HERE.glob("test_*.py")) for number in range(3)]
    rng, taken = random.Random(0), [[], [], []]
    lanes = {lane: shared(items, tmp_path) for lane in range(3)}
    while lanes:
        lane = rng.choice(list(lanes))
        item = next(lanes[lane], None)
        if item is None:
            del lanes[lane]
        else:
            taken[lane].append(item)
    assert sorted(map(id, chain(*taken))) == sorted(map(id, items))
    assert all(len({item.path for item in lane}) == len(lane) / 3 for lane in taken), "a file is one process's"


def test_what_takes_longest_is_there():
    assert all((HERE / name).exists() for name in LONGEST)
