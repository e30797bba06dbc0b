# Sourced by run.sh and test.sh: creates or reuses .venv.
[ -d .venv ] || python3 -m venv .venv
source .venv/bin/activate
pip install -q --disable-pip-version-check -r requirements.txt
