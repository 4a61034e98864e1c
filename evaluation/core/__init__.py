"""The runner of evaluations, its report and its sheets."""
