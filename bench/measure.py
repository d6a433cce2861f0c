"""Processes and what they cost: CPU time, wall-clock time and peak memory, as the kernel counts them.

The kernel starts a process's peak memory at that of the process it was forked from. So a command is not started
from the benchmark, which holds whole models, but from this file run as a small script.
"""

import json
import os
import subprocess
import sys
import time
from collections import namedtuple

Cost = namedtuple("Cost", "cpu wall peak")  # user and system s, s, resident MB (mapped pages count)


def run(command, env=None):
    """Runs a command to its end; a failure ends the benchmark with what the command said."""
    launcher = [sys.executable, "-S", "-E", __file__, *map(str, command)]
    done = subprocess.run(launcher, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**os.environ, **(env or {})})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stderr}")
    return Cost(**json.loads(done.stdout))


def size(package):
    return sum(p.stat().st_size for p in package.rglob("*") if p.is_file())


def _launch(command):
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there and in KB here
    print(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "peak": usage.ru_maxrss * unit / 1e6}))
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1:]))
