"""Benchmark differentially private training on medical images."""

__version__ = "0.1.0"
