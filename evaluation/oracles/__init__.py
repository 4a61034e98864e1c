"""Classifiers that read generated images, with their training."""
