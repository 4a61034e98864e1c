"""Readers of files: images, pairs, captions, posed views, audio."""
