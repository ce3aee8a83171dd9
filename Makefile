# `make` alone lists the targets. Needs Python 3.11 or later with the module venv, and nothing else.

PYTHON ?= python3
VENV ?= .venv
N ?= 3
WORKERS ?= auto
SEEDS ?= 100

# A stamp stands for a finished installation. Its name holds the version of Python: another PYTHON makes a new environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
SERVE := $(VENV)/.serve-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: help cluster test test-all quick simulate explore mutants torture check format lint types lock upgrade docs clean

help:  ## list the targets
	@echo "usage: make <target> [PYTHON=python3.12]"
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'

cluster: $(SERVE)  ## run a cluster on this machine until Ctrl-C: make cluster [N=3]; its data is kept in ./data
	@exec $(BIN)/kvstore cluster --nodes $(N) --data data

test: $(DEV)  ## run what must pass before a change: every test but the slow ones, and a simulation of 20 new seeds
	$(PYTEST) tests/unit/paxos --cov --cov-fail-under=100
	$(PYTEST) --ignore tests/unit/paxos -m "not slow"
	$(BIN)/python -m tests.simulation --seeds 20

test-all: test  ## run `make test`, then the slow tests and more seeds: make test-all [SEEDS=100]
	$(PYTEST) -m slow
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

quick: $(DEV)  ## run only the tests that start no real processes
	$(PYTEST) -m "not cluster and not slow"

simulate: $(DEV)  ## simulate whole clusters under faults: make simulate [SEEDS=100]
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

explore: $(DEV)  ## try every schedule of small clusters
	$(BIN)/python -m tests.exploration

mutants: $(DEV)  ## plant one bug at a time and check that a test, the simulation or the exploration finds it
	$(BIN)/python -m tests.mutants

torture: $(DEV)  ## run a cluster of real processes under faults, check every answer, write torture.html
	$(BIN)/python -m tests.torture faults --html torture.html

check: format lint types test  ## run all that a change must pass: format, lint, types, test

format: $(DEV)  ## check the format of the code
	$(BIN)/ruff format --check .

lint: $(DEV)  ## check the code with ruff
	$(BIN)/ruff check .

types: $(DEV)  ## check the types with mypy
	$(BIN)/mypy

# uv does not read the settings of pip. Its own are unset, so that versions and hashes are those of the public registry.
COMPILE = env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
	.venv-lock/bin/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --custom-compile-command "make lock" $(if $(filter upgrade,$(MAKECMDGOALS)),--upgrade)
WITHIN = --no-annotate --constraint requirements.lock

lock:  ## write the lock files after a change of pyproject.toml; locked versions stay where they fit
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	$(COMPILE) pyproject.toml --group dev --output-file requirements.lock
	$(COMPILE) pyproject.toml $(WITHIN) --output-file requirements-serve.lock
	$(COMPILE) --group build $(WITHIN) --output-file requirements-build.lock
	$(COMPILE) --group docs $(WITHIN) --output-file requirements-docs.lock

upgrade: lock  ## write the lock files with the newest version of every package

docs: .venv-docs/.made  ## build the documentation as a site in ./site
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

clean:  ## remove environments, caches and build results; ./data is kept
	rm -rf .venv .venv-* build dist site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What a replica needs, and the command `kvstore`. Without the stamp the environment is unfinished: it is made from nothing.
$(SERVE): requirements-serve.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "kvstore needs Python 3.11 or later; '$(PYTHON)' is $(or $(VERSION),not installed)." \
	    "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(SERVE)),,--clear) $(VENV)
	@rm -f $(SERVE)
	$(INSTALL) --require-hashes -r requirements-serve.lock -r requirements-build.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(SERVE)

# The development tools, beside it. Until they are installed the first stamp is away: an interrupted installation starts anew.
$(DEV): $(SERVE) requirements.lock
	@rm -f $(SERVE)
	$(INSTALL) --require-hashes -r requirements.lock
	@touch $(SERVE) $(DEV)

.venv-docs/.made: requirements-docs.lock
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@
