"""The training loop and what it builds on."""
