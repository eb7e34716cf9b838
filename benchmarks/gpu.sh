#!/usr/bin/env bash
# Measure the model on a GPU, and run the tests that need one. See benchmarks/gpu.py.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=".:benchmarks${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
timeout 400 "$python" benchmarks/gpu.py "$@"
status=$?
timeout 80 "$python" -m pytest -q -m gpu tests/restoration/test_tiled.py tests/checkpoints/test_saver.py ||
  status=1
exit "$status"
