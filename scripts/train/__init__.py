"""Training commands, one module per method."""
