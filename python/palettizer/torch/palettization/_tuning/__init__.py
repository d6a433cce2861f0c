"""Lookup tables trained with fixed indices."""
