"""What makes a graph smaller: groups, importances, masks and codebooks; and what brings its accuracy back."""
