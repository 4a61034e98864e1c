"""Design files."""
