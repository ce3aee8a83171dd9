# Everything starts here: `make` alone says what there is. Needs Python 3.11 or later with venv, nothing else.

PYTHON ?= python3
VENV ?= .venv
N ?= 3
WORKERS ?= auto
SEEDS ?= 1000

# The interpreter is part of the stamp's name: another PYTHON makes the environment anew.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
STAMP := $(VENV)/.made-by-$(VERSION)
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help cluster test quick simulate explore mutants torture check format lint types lock docs clean

help:  ## this list
	@echo "usage: make <target> [PYTHON=python3.12]"
	@sed -nE 's/^([a-z]+):.*  ## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'

cluster: $(STAMP)  ## run a cluster on this machine until Ctrl-C: make cluster [N=3]; its data stays in ./data
	@exec $(BIN)/kvstore cluster --nodes $(N) --data data

test: $(STAMP)  ## all tests: the quick ones with every branch of paxos/ covered, new seeds, then real processes
	$(PYTEST) -n $(WORKERS) tests/unit/paxos --cov --cov-fail-under=100
	$(PYTEST) -n $(WORKERS) -m "not cluster" --ignore tests/unit/paxos
	$(BIN)/python -m tests.simulation --seeds 100
	$(PYTEST) -m cluster

quick: $(STAMP)  ## only the tests that start no real cluster
	$(PYTEST) -n $(WORKERS) -m "not cluster" -q

simulate: $(STAMP)  ## whole clusters under simulated faults, on all cores: make simulate [SEEDS=1000]
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

explore: $(STAMP)  ## every schedule of small clusters
	$(BIN)/python -m tests.exploration

mutants: $(STAMP)  ## plant bugs, one at a time, and see that simulation, exploration or a test finds each
	$(BIN)/python -m tests.mutants

torture: $(STAMP)  ## a cluster of real processes under faults and clients, every answer checked; writes torture.html
	$(BIN)/python -m bench faults --html torture.html

check: format lint types test  ## all that a change must pass: format, lint, types, tests (import rules among them)

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# uv reads no setting of pip: with its own left out too, versions and hashes are the public registry's on every machine.
COMPILE = env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
	.venv-lock/bin/uv pip compile --no-config --quiet --universal --generate-hashes --no-strip-extras --upgrade \
	--custom-compile-command "make lock" pyproject.toml

lock:  ## resolve the dependencies anew: requirements.lock, and the part of it that a replica needs
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	$(COMPILE) --group dev --output-file requirements.lock
	$(COMPILE) --constraint requirements.lock --no-annotate --output-file requirements-serve.lock

docs: .venv-docs/.made  ## build the documentation as a site in ./site
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

clean:  ## remove environments, caches and build results; ./data stays
	rm -rf .venv .venv-* build dist site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "kvstore needs Python 3.11 or later; '$(PYTHON)' is $(or $(VERSION),not there)." \
	    "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(STAMP)),,--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv-docs/.made: requirements-docs.lock
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@
