"""Synthetic datasets with exact truth."""
