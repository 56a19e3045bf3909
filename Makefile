# Everything runs in a virtual environment of its own, .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: scan test check format docs

scan: .venv/installed
	$(BIN)/ban-jax scan || test $$? -eq 1  # 1: something was flagged, as it should be

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf .venv/types build && $(BIN)/pip install --quiet --no-deps --target .venv/types .
	cd .venv/types && ../../$(BIN)/mypy --config-file ../../setup.cfg -p ban_jax

format: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/documented  # the site, in .site/; only the installation needs the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/documented: .venv/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@
