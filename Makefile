# Everything runs in a virtual environment of its own, .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: scan test check format

scan: .venv/installed
	$(BIN)/ban-jax scan || test $$? -eq 1  # 1: something was flagged, as it should be

test: .venv/installed
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/pip install --quiet ruff mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy ban_jax

format: .venv/installed
	$(BIN)/pip install --quiet ruff
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@
