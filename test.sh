#!/usr/bin/env bash
# Sets up .venv in the repository root where it is missing, and runs the tests;
# arguments go to pytest (`bash test.sh -m slow`).
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
pip install -q --disable-pip-version-check -e '.[test]'
ruff check .
ruff format --check .
pytest "$@"
