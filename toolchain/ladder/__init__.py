"""The quantization ladder: from the cheapest way to round a network to the dearest, only as far as a goal needs."""
