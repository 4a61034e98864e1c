"""The pipeline mixin, and the shipped models."""
