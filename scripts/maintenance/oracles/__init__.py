"""Training and checks of the oracles, for maintainers."""
