"""Scores of images, views and audio."""
