"""`coremltools.optimize.torch.layerwise_compression`, straight from there."""

from palettizer import _peer

_peer.stand_for(__name__, "coremltools.optimize.torch.layerwise_compression")
