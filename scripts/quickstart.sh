#!/usr/bin/env bash
# From a fresh clone to a picture: installs into .venv, then draws examples/outfit on the shipped models.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh

began=$SECONDS
set_up runtime
HF_HUB_OFFLINE=1 .venv/bin/weftwork generate examples/outfit/outfit.json --output outputs/quickstart.png
echo "the picture is $PWD/outputs/quickstart.png; everything took $((SECONDS - began)) s"
