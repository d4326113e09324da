"""Shandilya, "Privacy and Performance: Analysis of Biomedical Image Segmentation"."""
