"""Converters of other projects' checkpoints."""
