"""Makes the calls of the Python package, each in a folder of its own, with the package of one side:

    PYTHONPATH=PACKAGES:scripts python -m outputs.in_python INPUTS OUT PACKAGES TEXT SHARE
"""

import logging
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path

import palettizer
import torch

from outputs.calls.case import CALLS

for module in ("core_ml", "after_training", "in_training", "in_parts", "refused", "names"):
    import_module(f"outputs.calls.{module}")


def chosen(only, share):
    """The names that hold a text; of each kind, evenly spread, one in so many."""
    kinds = {}
    for name in CALLS:
        if only in name:
            kinds.setdefault(name.split("/")[0], []).append(name)
    return [name for names in kinds.values() for name in names[::share]]


def main(given, out, packages, only, share):
    """Makes the calls, each in a folder, with what is logged and warned of."""
    assert Path(palettizer.__file__).is_relative_to(packages), f"{palettizer.__file__} is not of {packages}"
    torch.set_num_threads(1)
    for name in chosen(only, share):
        (out / name).mkdir(parents=True)
        os.chdir(out / name)  # messages show relative paths, which are those of the other side
        handler = logging.FileHandler("log.txt")
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger = logging.getLogger("palettizer")
        logger.addHandler(handler)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                CALLS[name](given, Path())
            except Exception as error:  # compared like any other result
                Path("failed.txt").write_text(f"{type(error).__name__}: {error}")
        logger.removeHandler(handler)
        handler.close()
        ours = [f"{each.category.__name__}: {each.message}" for each in caught if "palettiz" in str(each.message)]
        Path("warnings.txt").write_text("\n".join(ours))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
