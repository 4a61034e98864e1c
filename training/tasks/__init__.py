"""One training task per method."""
