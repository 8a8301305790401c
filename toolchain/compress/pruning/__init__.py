"""What can be done without: importance, and plans that say what goes before it does."""
