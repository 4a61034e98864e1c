"""One trainer per method."""
