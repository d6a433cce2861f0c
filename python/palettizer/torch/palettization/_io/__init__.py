"""Models and sensitivities on disk."""
