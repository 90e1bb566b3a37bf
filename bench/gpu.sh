#!/bin/sh
# Everything that needs a GPU, in one command of ten minutes: see bench/gpu.py.
#
#   bench/gpu.sh pack     once, where there is a network: bench/gpu_bundle/, below 64 MiB
#   bench/gpu.sh run      on the machine with the GPU, which needs no network: one table, bench/results/gpu.md
#
# PYTHON names the interpreter; by default the checkout's own environment, where there is one, else python3.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
exec "$PYTHON" bench/gpu.py "$@"
