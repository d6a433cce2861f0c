"""How much the loss depends on each weight: computed from gradients, or read from a file."""
