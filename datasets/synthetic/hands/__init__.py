"""Synthetic dataset of hands in gloves with exact joints."""

from weftwork.datasets.synthetic.hands.dataset import COLORS, KEYPOINTS, SIZE, SPLITS, HandSample, sample

__all__ = ["COLORS", "KEYPOINTS", "SIZE", "SPLITS", "HandSample", "sample"]
