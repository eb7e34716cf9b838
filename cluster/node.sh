#!/usr/bin/env bash
# Set up one node of a `ray up` cluster: node.sh [PACKAGE ...]
#
# Python, the package and its dependencies go into ~/venv, at the versions of constraints.txt, and
# the PACKAGEs beside them (what the head needs to start other nodes). What is there already stays.
# Ray wants the same Python, to the patch, on all nodes, so uv brings it, not the machine's image.
set -euo pipefail

uv_version=0.13.9
checkout=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$HOME/.local/bin:$PATH"

if [[ "$(uv --version 2>/dev/null)" != "uv $uv_version"* ]]; then
  curl -LsSf "https://astral.sh/uv/$uv_version/install.sh" | sh
fi
uv venv --managed-python --python 3.11 --allow-existing ~/venv
uv pip install --python ~/venv/bin/python -c "$checkout/constraints.txt" -e "$checkout" "$@"

# Ray runs every command in a shell that reads this, and the jobs inherit it. A job that is stopped
# gets two minutes to save, not three seconds.
line='export PATH="$HOME/venv/bin:$PATH" RAY_AUTH_MODE=token RAY_JOB_STOP_WAIT_TIME_S=120'
grep -qxF "$line" ~/.bashrc 2>/dev/null || echo "$line" >> ~/.bashrc
