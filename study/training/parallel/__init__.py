"""Training steps that several processes share."""
