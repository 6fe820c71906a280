"""Layers: modules with parameters, one family a file."""
