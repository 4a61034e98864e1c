"""How the shipped models are trained; not part of the wheel."""
