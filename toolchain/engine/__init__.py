"""Runs a graph with torch: float, fake-quantized with gradients, and exactly in integers."""
