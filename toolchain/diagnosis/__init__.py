"""Where a quantized graph loses accuracy, why, and what to do about it. Imports torch."""
