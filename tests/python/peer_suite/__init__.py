"""The palettization tests that coremltools ships, run against palettizer. None of them is copied: they run from where
coremltools is installed, with `coremltools.optimize` bridged to us."""
