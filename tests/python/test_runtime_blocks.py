"""Blocks of pixels as channels or as batches, and back."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

import mil
from test_runtime_shape import values


def to_space(x, b):
    """TensorFlow's `depth_to_space`: the channel is the last part of the channels."""
    n, c, h, w = x.shape
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


def to_depth(x, b):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


def to_batch(x, block, pads):
    x = torch.nn.functional.pad(x, [*pads[1], *pads[0]])
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block[0], block[0], w // block[1], block[1]).permute(3, 5, 0, 1, 2, 4)
    return x.reshape(-1, c, h // block[0], w // block[1])


def from_batch(x, block, crops):
    n, c, h, w = x.shape
    x = x.reshape(*block, -1, c, h, w).permute(2, 3, 4, 0, 5, 1).reshape(-1, c, h * block[0], w * block[1])
    return x[:, :, crops[0][0]:x.shape[2] - crops[0][1], crops[1][0]:x.shape[3] - crops[1][1]]


def cases(dtype):
    def case(build, shape, function):
        return build, {"x": values(shape, dtype)}, function
    made = []
    for b, shape in [(2, (2, 12, 3, 5)), (3, (1, 9, 2, 1)), (2, (1, 4, 32, 33))]:
        made += [
            case(lambda x, b=b: mb.depth_to_space(x=x, block_size=b), shape, lambda x, b=b: to_space(x, b)),
            case(lambda x, b=b: mb.pixel_shuffle(x=x, upscale_factor=b), shape,
                 lambda x, b=b: torch.nn.functional.pixel_shuffle(x, b)),
        ]
        spread = (shape[0], 3, shape[2] * b, shape[3] * b)
        made += [
            case(lambda x, b=b: mb.space_to_depth(x=x, block_size=b), spread, lambda x, b=b: to_depth(x, b)),
            case(lambda x, b=b: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(b)), spread,
                 lambda x, b=b: torch.nn.functional.pixel_unshuffle(x, b)),
        ]
    for block, pads, shape in [([2, 2], [[0, 0], [2, 0]], (2, 3, 2, 4)), ([1, 3], [[0, 1], [1, 1]], (1, 2, 3, 4))]:
        made.append(case(lambda x, block=block, pads=pads: mb.space_to_batch(x=x, block_shape=block, paddings=pads), shape,
                         lambda x, block=block, pads=pads: to_batch(x, block, pads)))
    for block, crops, shape in [([2, 2], [[0, 0], [2, 0]], (8, 3, 2, 4)), ([1, 3], [[0, 1], [1, 1]], (6, 2, 3, 4))]:
        made.append(case(lambda x, block=block, crops=crops: mb.batch_to_space(x=x, block_shape=block, crops=crops), shape,
                         lambda x, block=block, crops=crops: from_batch(x, block, crops)))
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_blocks(dtype):
    mil.check_cases(cases(dtype), differentiable=dtype == np.float32)


@pytest.mark.parametrize(("build", "message"), [
    (lambda x: mb.depth_to_space(x=x, block_size=0), "block_size has 0"),
    (lambda x: mb.depth_to_space(x=x, block_size=2), "not divisible by 4"),
])
def test_what_cannot_be(build, message):
    with pytest.raises(ValueError, match=message):
        mil.run(build, {"x": values((1, 3, 2, 2))})
