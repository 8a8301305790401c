"""Scales moved between layers, the function unchanged, so that rounding costs less."""
