"""`coremltools.optimize.torch.quantization`, straight from there."""

from palettizer import _peer

_peer.stand_for(__name__, "coremltools.optimize.torch.quantization")
