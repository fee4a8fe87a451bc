# Everything a developer runs. `make setup` first; the rest uses its virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := protos rpc telemetry kernels checkpoint cache vision_server lm_server gateway lookonce demo tests

.PHONY: setup demo test check format protos train-demo

setup: $(VENV)/.installed ## A virtual environment with the tested versions of everything

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## Serves the shipped checkpoint, asks about the shipped pictures, prints the table
	$(BIN)/python -m demo.show

test: setup ## Every test
	$(BIN)/python -m pytest

check: setup ## Format, lint, types, import order, generated code
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check

format: setup ## Rewrites the code as `check` wants it
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

protos: setup ## Generates the code of the wire contract
	$(BIN)/python protos/generate.py

train-demo: setup ## Trains the demo checkpoint again, from scratch or from where it stopped (hours)
	$(BIN)/python -m demo.train
