"""Faster implementations of the layers, for training on a CPU."""
