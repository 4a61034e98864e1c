"""Objectives, the training loop, and the tasks that use it."""
