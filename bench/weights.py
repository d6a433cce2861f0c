"""Random weights as trained ones are distributed: He-normal with slightly heavy tails (Student's t, 8 degrees of freedom)."""

import zlib

import numpy as np


def draw(name, shape):
    """fp32 weights of a layer, the same ones for the same name; all dimensions but the first are its fan-in."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    fan_in = int(np.prod(shape[1:])) or 1
    return rng.standard_t(8, shape).astype(np.float32) * np.float32(np.sqrt(2 / fan_in) * 0.866)
