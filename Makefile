# The commands of the project. Each works from a fresh clone; you need Python 3.11 or newer and make.
PYTHON ?= python3
# Another interpreter has an environment of its own: `make test PYTHON=python3.13`.
environment_of = .venv$(if $(filter python3,$(1)),,-$(subst /,-,$(patsubst /%,%,$(1))))
VENV := $(call environment_of,$(PYTHON))
BIN := $(VENV)/bin
ARGS ?=
PYTHONS ?= $(PYTHON)

TYPESCRIPT := clients/typescript
# Made by npm, with the time of the installation. Without npm, the tests of this client are left out.
TYPESCRIPT_PACKAGES := $(if $(shell command -v npm),$(TYPESCRIPT)/node_modules/.package-lock.json)
TSC := $(TYPESCRIPT)/node_modules/.bin/tsc
CONSOLE_TYPES := --allowJs --checkJs --noEmit --strict --noUnusedLocals --noUnusedParameters \
	--target es2022 --module esnext --moduleResolution bundler --lib es2023,dom,dom.iterable

MINUTES ?= 10
SEED ?=
ROWS ?=

.PHONY: help serve test screenshots lint format bench torture clean environment
.PHONY: lint-format lint-style lint-types lint-layers lint-pins lint-client lint-typescript

help: ## list these commands
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo 'ARGS="..." passes arguments on; PYTHON=python3.13 uses another interpreter, with an environment of its own.'
	@echo 'PYTHONS="python3 python3.13" lets make bench measure the service with several interpreters.'

serve: $(VENV)/.serve ## run the service on ./data.json
	@exec $(BIN)/leasehold serve $(ARGS)

# The tests start hundreds of services. If the environment forbids bytecode, each start compiles the service again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev $(TYPESCRIPT_PACKAGES) ## run all tests in six processes (in one: ARGS="-n 0")
	$(BIN)/python -m pytest -n 6 --dist worksteal $(ARGS)

screenshots: $(VENV)/.dev ## make the pictures of the console in docs/images; needs Chromium
	SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser/test_console_screenshots.py

lint: $(VENV)/.dev ## check style, types, layers, pins and the client, side by side
	@$(MAKE) --no-print-directory --jobs=2 lint-types lint-format lint-style lint-layers lint-pins lint-client lint-typescript

lint-format: $(VENV)/.dev
	@$(BIN)/ruff format --check .

lint-style: $(VENV)/.dev
	@$(BIN)/ruff check .

lint-types: $(VENV)/.dev
	@$(BIN)/mypy

lint-layers: $(VENV)/.dev
	@$(BIN)/lint-imports --no-logo

lint-pins: $(VENV)/.dev
	@$(BIN)/python tools/pins.py

lint-client: $(VENV)/.dev
	@cd clients/python && $(abspath $(BIN))/mypy
	@$(BIN)/python clients/python/tools/make_sync.py --check

# Where the packages are installed, which `make test` does if there is npm. The console has its types in comments.
lint-typescript:
	@if [ -e $(TSC) ]; then $(TSC) --project $(TYPESCRIPT) --noEmit && $(TSC) $(CONSOLE_TYPES) src/leasehold/console/main.js; fi

format: $(VENV)/.dev ## format the source, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## compare the speed with other services; writes docs/benchmarks.md
	@for each in $(filter-out $(PYTHON),$(PYTHONS)); do \
		$(MAKE) --no-print-directory environment PYTHON="$$each" || exit 1; \
	done
	$(BIN)/python -m bench --python $(foreach each,$(PYTHONS),$(call environment_of,$(each))/bin/python) $(ARGS)

environment: $(VENV)/.serve

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

$(VENV)/.dev: requirements/dev.txt requirements/otel.txt clients/python/pyproject.toml $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable clients/python
	@$(BIN)/python tools/pins.py --unpinned | xargs -r \
		$(BIN)/python -m pip uninstall --quiet --disable-pip-version-check --yes
	@touch $@

# The scripts of packages are not run: none that a test needs has one. If npm fails, the tests say what is missing.
$(TYPESCRIPT)/node_modules/.package-lock.json: $(TYPESCRIPT)/package-lock.json
	-cd $(TYPESCRIPT) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

clean: ## remove environments and caches
	rm -rf $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/dist $(TYPESCRIPT)/build
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis
