"""A pytest plugin: what coremltools does again and again for its own sake, half of the time of a conversion, is done once."""

import gc

from coremltools.converters.mil.mil import Program
from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipelineManager


def pytest_configure():
    """It checks the whole program after each of some ninety passes of its own; here, before the first and after the last."""
    apply_pipeline = PassPipelineManager.apply_pipeline

    def apply(prog, pass_pipeline):
        prog.validate()
        validate, Program.validate = Program.validate, lambda *_, **__: None
        try:
            apply_pipeline(prog, pass_pipeline)
        finally:
            Program.validate = validate
        prog.validate(check_essential_scope=True)

    PassPipelineManager.apply_pipeline = staticmethod(apply)


def pytest_runtest_setup():
    """What is there stays, so that collecting garbage need not look at it: `convert` does so at each call."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Else what is never freed would be called a leak at the end."""
    gc.unfreeze()
