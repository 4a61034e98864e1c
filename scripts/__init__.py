"""Commands, and programs that make and check the shipped models."""

import os

# Threads of torch that wait would spin, which slows them down beside other processes; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
