# Sourced by run.sh and test.sh: creates or reuses .venv.
[ -d .venv ] || python3 -m venv .venv
source .venv/bin/activate
pip install -q --disable-pip-version-check -r requirements.txt
# Large pages for large buffers (Linux): XLA on CPU maps its scratch memory anew
# at every step, and fills it faster so (benchmarks/large_pages.py).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
