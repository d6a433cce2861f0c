"""A model that takes the command some seconds, so that a signal finds it at work."""

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb

from zoo import TARGETS, convert, random


def large(target, layers=6, width=1024):
    """A stack of square fp16 linears: 12 MB of weights."""
    @mb.program(input_specs=[mb.TensorSpec((1, width), dtype=ct.converters.mil.mil.types.fp16)],
                opset_version=TARGETS[target])
    def program(x):
        for layer in range(layers):
            weight = random(f"large{layer}", (width, width), "normal").astype(np.float16)
            x = mb.linear(x=x, weight=mb.const(val=weight, name=f"w{layer}"), name=f"linear{layer}")
        return x
    return convert(program, target)
