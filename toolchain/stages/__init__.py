"""The seven stages and the states that pass between them."""
