"""Training recipes of the shipped models; not part of the wheel."""
