"""Training: the state and step of supervised restorers, the loop that any kind of step runs in, and its records."""
