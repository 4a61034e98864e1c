#!/usr/bin/env bash
# Installs the test dependencies into .venv and runs the fast tests. Arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh

set_up dev
unset PYTHONDONTWRITEBYTECODE # workers and their child processes would compile the package again and again
HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
