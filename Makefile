# make demo | test | soak | check: each builds .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test soak check clean

demo: $(BIN)/.installed
	@vrtspike demo

test: $(BIN)/.installed-dev
	@echo "Tests without Ray ..."
	@OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 8 --dist loadfile
	@echo "Tests with a local Ray, and slow ones ..."
	@OMP_NUM_THREADS=1 pytest -m "slow and not ray and not soak" -n auto --maxprocesses 8 --dist loadfile
	@pytest -m "ray and not soak"

soak: $(BIN)/.installed-dev
	@pytest -m soak
	@python tests/soak.py --kills 20

check: $(BIN)/.installed-dev
	@ruff format --check .
	@ruff check .
	@mypy --strict

clean:
	rm -rf .venv data/demo data/debug runs/demo runs/debug

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "vrtspike needs Python 3.11 or newer, got: $$($(PYTHON) --version 2>&1)." \
	       "Fix: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv

$(BIN)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vrtspike into .venv (torch and Ray are large: some minutes) ..."
	@$(PIP) -e .
	@touch $@

$(BIN)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vrtspike and its test tools into .venv ..."
	@$(PIP) -e '.[dev]'
	@touch $@ $(BIN)/.installed
