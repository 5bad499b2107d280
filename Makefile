# Every target sets up .venv by itself; nothing is reinstalled while the requirement files are unchanged.
#   make PYTHON=python3.12 test      takes another interpreter (3.11 or newer) for a new .venv
#   make test ARGS='-k registry'     passes arguments on to pytest

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
ARGS ?=
# Workers of `make test`; `make test WORKERS=0` runs the tests in one process.
WORKERS ?= auto

# The first interpreter of a version that the harness runs on.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
NO_PYTHON := no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3

PLUGIN_FILES := $(sort $(wildcard plugins/*/pyproject.toml))
EXAMPLE := tests/example_plugin
EDITABLE := -e '.[dev]' $(patsubst %/pyproject.toml,-e %,$(PLUGIN_FILES)) -e $(EXAMPLE)
DEMO := .venv-demo
DIST := .venv-dist
DEMO_PLUGINS := backend-torch meter-fuel meter-nvml workload-speculative-decoding
# An index to take PyTorch from beside the usual one: that of its CPU builds saves gigabytes where the usual one has the CUDA build.
#   make demo TORCH_INDEX=URL
TORCH_INDEX ?=
SOURCES := harness joule_harness_cli.py $(wildcard plugins/*/src) $(EXAMPLE)/src

.PHONY: help setup demo test slow soak lint bench docs dist gpu-check clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 20

setup: $(STAMP) ## make .venv with the harness, its plugins and the development tools

# One pip call, with the constraints: a later one without them may replace torch by another build.
$(STAMP): pyproject.toml constraints.txt $(PLUGIN_FILES) $(EXAMPLE)/pyproject.toml
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt $(EDITABLE)
	@touch $@

demo: $(DEMO)/.stamp ## measure a function, a command and tokens of a small language model, in an environment of its own
	$(DEMO)/bin/harness run suites/first-number.yaml
	$(DEMO)/bin/harness run suites/quickstart.yaml

# What the demo needs and no more: neither the development tools nor the other plugins.
$(DEMO)/.stamp: pyproject.toml constraints.txt $(DEMO_PLUGINS:%=plugins/%/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	@echo "Setting up $(DEMO), once: 0.3 GB to download and 1 GB on the disk with the CPU build of PyTorch, two to six minutes;"
	@echo "several GB where pip finds the CUDA build, which TORCH_INDEX=URL of an index of CPU builds avoids. Then: the first number"
	@echo "in about half a minute, the rest in about five."
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --disable-pip-version-check --quiet --no-compile $(TORCH_INDEX:%=--extra-index-url %) -c constraints.txt -e . $(DEMO_PLUGINS:%=-e plugins/%)
	@touch $@

test: $(STAMP) ## run every test but the heavy ones
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

slow: $(STAMP) ## run the heavy end-to-end tests: whole gates, killed processes, long trainings
	$(BIN)/pytest -m slow $(ARGS)

soak: $(STAMP) ## run the full-size fuzzing and soaks, which `make test` leaves out
	$(BIN)/pytest -m soak $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, the import rules, and that docs/ is what the code says
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/python docs/build.py --check

bench: $(VENV)/.stamp-peers ## benchmark the harness itself, beside codecarbon and zeus
	$(BIN)/pytest benchmarks --benchmark-only -s $(ARGS)

# What the benchmarks compare with; nothing else needs it.
$(VENV)/.stamp-peers: $(STAMP)
	$(PIP) -c constraints.txt codecarbon zeus
	@touch $@

dist: ## build the wheel and the source archive of every distribution in dist/, and check them
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt build hatchling twine
	rm -rf dist
	for project in . $(patsubst %/pyproject.toml,%,$(PLUGIN_FILES)); do \
	  $(DIST)/bin/python -m build --no-isolation --outdir dist $$project >/dev/null || exit 1; done
	$(DIST)/bin/python -m twine check --strict dist/*

docs: $(VENV)/.stamp-docs ## write docs/ and the README's terminal session anew, check what they say, and build the site in build/site
	$(BIN)/python docs/build.py
	$(BIN)/python docs/build.py --session
	$(BIN)/pytest tests/rules/test_documents.py tests/rules/test_pages.py $(ARGS)
	$(BIN)/mkdocs build --strict --quiet
	$(BIN)/harness site build/site/results reports/published/*/

# What builds the site; nothing else needs it.
$(VENV)/.stamp-docs: $(STAMP) constraints.txt
	$(PIP) -c constraints.txt -e '.[docs]'
	@touch $@

gpu-check: $(STAMP) ## say what can be measured here, then run what needs a CUDA device (ARGS=--dry-run lists the steps)
	$(BIN)/harness doctor
	PYTHON=$(BIN)/python bash benchmarks/gpu_check.sh $(ARGS)

clean: ## remove .venv and everything that the tools cache; reports stay
	rm -rf $(VENV) $(DEMO) $(DIST) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find harness plugins tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
