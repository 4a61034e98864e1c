#!/usr/bin/env bash
# Installs weftwork into .venv and generates examples/scene with the shipped models.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh

began=$SECONDS
set_up runtime
HF_HUB_OFFLINE=1 .venv/bin/weftwork generate examples/scene/scene.json --output outputs/quickstart.png
echo "saved $PWD/outputs/quickstart.png after $((SECONDS - began)) s"
printf 'to use the command weftwork in this shell, run:\n  source %q\n' "$PWD/.venv/bin/activate"
