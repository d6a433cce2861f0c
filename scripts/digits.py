"""Writes scikit-learn's digits to the file that the Rust example `dkm_digits` is built with.

1437 images to train with, then 360 to test with, the split of the Python tests. Of each image first the label, then 64
pixels from 0 to 16, row by row, a byte each. Run it with the Python tests' environment:

    python scripts/digits.py

The images are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository, doi 10.24432/C50P49, licensed under CC BY 4.0.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

OUT = Path(__file__).parent.parent / "examples/dkm_digits/digits.bin"


def main():
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    train, test, train_labels, test_labels = split
    rows = np.concatenate([np.c_[train_labels, train], np.c_[test_labels, test]])
    OUT.write_bytes(rows.astype(np.uint8).tobytes())


if __name__ == "__main__":
    main()
