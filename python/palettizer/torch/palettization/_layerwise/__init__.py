"""Palettes fitted to what a layer computes: what its inputs look like, collected block by block, and the fit."""
