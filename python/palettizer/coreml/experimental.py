"""`coremltools.optimize.coreml.experimental`, straight from there."""

from palettizer import _peer

_peer.stand_for(__name__, "coremltools.optimize.coreml.experimental")
