"""What the tests of `palettizer.torch` stand on: layers, settings, the rules of a palettized module, real nets."""
