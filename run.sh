#!/usr/bin/env bash
# Sets up .venv in the repository root where it is missing, and runs the main
# job; arguments go to run.py (`bash run.sh --workdir=runs/other`).
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
python run.py --config=configs/hypo.py "$@"
