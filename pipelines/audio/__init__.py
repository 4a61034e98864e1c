"""Audio for video."""
