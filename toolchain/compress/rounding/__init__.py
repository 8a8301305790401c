"""Learned rounding of weights."""
