"""Weights that share values."""
