# `make PYTHON=python3 ...` uses that Python as it is; without it, the targets set up .venv once, from requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help setup report test lint bench gpu lab lock clean

VENV := .venv
PYTHON ?= $(VENV)/bin/python
PROFILE ?= quick
ARGS ?=

BIN := $(if $(findstring /,$(PYTHON)),$(dir $(PYTHON)))
QUIET := --quiet --quiet
READY := $(if $(filter $(VENV)/bin/python,$(PYTHON)),$(VENV)/.done)

help: ## show this list
	@echo 'make TARGET [PROFILE=quick] [ARGS="..."] [PYTHON=python3]'
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

setup: $(READY) ## set up .venv from requirements.lock, if that is not done yet

report: $(READY) ## run what is missing of PROFILE, write the report to runs/PROFILE/report (ARGS=--publish: replace the committed one)
	$(BIN)labkit report --profile $(PROFILE) $(ARGS)

# Two files at a time, the longest first (tests/conftest.py): a test waits for its ranks for half of its time.
test: $(READY) ## all tests that this machine can run (ARGS=tests/rows: those of a folder)
	$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## ruff (rules and layout), mypy, and the direction of imports
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c "from importlinter.cli import lint_imports_command as lint; lint()" --no-cache

bench: $(READY) ## measure the lab's own overheads
	$(BIN)labkit bench $(ARGS)

gpu: $(READY) ## the tests that need a GPU; `make gpu PYTHON=python3` where torch is already installed
	$(PYTHON) -m pytest tests/gpu -m gpu $(ARGS)

# .jupyter/labconfig: JupyterLab asks nobody about its news, and looks for no newer version of itself.
lab: $(READY) ## JupyterLab on notebooks/
	$(PYTHON) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (labkit)"
	PATH="$(if $(BIN),$(abspath $(BIN)):)$$PATH" JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	  $(PYTHON) -m jupyterlab notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# The stamp is written last: an interrupted set-up is taken up again by the next make.
$(VENV)/.done: requirements.lock pyproject.toml
	@is311='import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
	if ! { $(VENV)/bin/python -c "$$is311" && $(VENV)/bin/python -m pip --version; } >/dev/null 2>&1; then \
	  for py in python3.11 python3 ''; do \
	    if [ -z "$$py" ]; then echo 'make: no Python 3.11 found (tried python3.11 and python3). Install it (Debian 12: python3 and python3-venv),' \
	      'or use a Python that has the packages: make PYTHON=/path/to/python ...' >&2; exit 1; fi; \
	    if "$$py" -c "$$is311" 2>/dev/null; then break; fi; \
	  done; \
	  echo "$$py -m venv $(VENV)"; "$$py" -m venv --clear $(VENV); \
	fi
	@echo 'installing requirements.lock into $(VENV), which takes some minutes'
	@$(VENV)/bin/python -m pip install $(QUIET) --require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install $(QUIET) --no-deps --no-build-isolation -e .
	@touch $@

# Keeps every pin that pyproject.toml still allows; `make lock ARGS=--upgrade` moves them all but torch, which moves on purpose only.
TORCH := torch==2.14.1 torchvision==0.29.1
PIP_TOOLS := pip-tools==7.6.2
lock: ## resolve pyproject.toml again into requirements.lock (Python 3.11, Linux x86_64; ARGS=--upgrade for newer versions)
	$(or $(wildcard $(VENV)/bin/python),python3.11) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet $(PIP_TOOLS)
	CUSTOM_COMPILE_COMMAND='make lock' build/lock/bin/pip-compile --quiet --newline lf --all-extras --build-deps-for editable \
	  --strip-extras --generate-hashes --allow-unsafe --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  $(TORCH:%=--upgrade-package %) $(ARGS) --output-file requirements.lock pyproject.toml
	rm -rf build/lock

clean: ## remove build outputs and caches; runs/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -path ./$(VENV) -o -path ./runs -o -path ./.git \) -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 \
	  | xargs -0 rm -rf
