"""What a part of a process costs."""

import resource
import sys
import time
from pathlib import Path


def status(field):
    """A figure of /proc/self/status in MB (10⁶ bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field + ":"))


class Meter:
    """`with Meter() as meter:`, then `meter.cpu`, `.wall` in seconds and `.peak` in MB above the start."""

    def __enter__(self):
        self.linux = sys.platform == "linux"
        if self.linux:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
            self.base = status("VmRSS")
        else:
            self.base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.began, self.start = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *failure):
        self.wall, self.cpu = time.perf_counter() - self.start, time.process_time() - self.began
        peak = status("VmHWM") if self.linux else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.peak = peak - self.base
        self.whole = peak
