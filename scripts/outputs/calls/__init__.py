"""The calls of the Python package, by what is called. Public names alone: private ones are what a rebuilding changes."""
