"""Views: images with geometry from a new camera."""
