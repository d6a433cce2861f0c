"""What `same_outputs.py` is made of: the builds, the inputs, the runs of the command, the calls of the Python package."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/python"))
for knob in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TQDM_DISABLE"):
    os.environ.setdefault(knob, "1")
