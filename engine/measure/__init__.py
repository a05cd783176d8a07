"""What is here, how long it took, how much it held, and whether a difference is real."""
