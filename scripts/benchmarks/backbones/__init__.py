"""The properties of every method on every family of denoisers, as a table."""
