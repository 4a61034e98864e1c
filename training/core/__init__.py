"""The training loop: batches, checkpoints, options, logs."""
