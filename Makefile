# The commands of the project. Each works from a fresh clone; you need Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

MINUTES ?= 10
SEED ?=
ROWS ?=

.PHONY: serve test lint format bench torture clean

serve: $(VENV)/.serve ## run the service on ./data.json
	@exec $(BIN)/leasehold serve $(ARGS)

test: $(VENV)/.dev ## run all tests in three processes (in one: ARGS="-n 0")
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

lint: $(VENV)/.dev ## check style, types, layers and pins
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/pins.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## compare the speed with other services; writes docs/benchmarks.md
	$(BIN)/python -m bench $(ARGS)

torture: $(VENV)/.dev ## try to break the promises, for MINUTES (10), with a SEED, in all ROWS or some
	PYTHONPATH=tests $(BIN)/python -m torture --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(ROWS),--rows $(ROWS)) $(ARGS)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Leasehold needs Python 3.11 or newer; choose one with PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: requirements/serve.txt requirements/postgres.txt pyproject.toml src/leasehold/__init__.py $(VENV)/.python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/serve.txt -r requirements/postgres.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@$(BIN)/python tools/pins.py --unpinned | xargs -r \
		$(BIN)/python -m pip uninstall --quiet --disable-pip-version-check --yes
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
