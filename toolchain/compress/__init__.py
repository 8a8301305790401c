"""What makes a graph smaller: dependency groups, importances, masks and codebooks, and what brings accuracy back."""
