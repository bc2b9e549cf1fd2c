# Reprise. `make help` lists what can be done.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
LOCKS := docker/cpu
# PyTorch's own index has the CPU build. It is asked for torch alone: a look-up in an index that cannot be reached costs
# seconds of retries for every package.
TORCH_INDEX := https://download.pytorch.org/whl/cpu
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps

# Every command runs with the environment's own programs, as after `source .venv/bin/activate`.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A recipe from the shelf: make train TASK=mrpc MODEL=bert-base-uncased
RECIPE := $(if $(TASK),task=$(TASK)) $(if $(MODEL),model=$(MODEL))

.PHONY: help setup train test test-default lint format lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## Make .venv from the hash locks in docker/cpu

train: setup  ## Cook the recipe in params.yaml; TASK=… and MODEL=… take one from the shelf first
	$(if $(strip $(RECIPE)),reprise recipe $(strip $(RECIPE)))
	dvc repro
	@reprise summary

test: $(VENV)/.dev  ## Run the tests and measure their coverage
	pytest --cov --cov-report=term:skip-covered --cov-fail-under=90 --durations=10

test-default: $(VENV)/.dev  ## Cook the default recipe in a new clone, without the network after fetch, and check the result
	pytest -m default -n 0 -s

lint: $(VENV)/.dev  ## Check style and types: ruff and mypy
	ruff check .
	ruff format --check .
	mypy

format: $(VENV)/.dev  ## Format the code
	ruff check --fix .
	ruff format .

lock:  ## Renew the hash locks from docker/*/*.in (needs uv)
	@command -v uv >/dev/null || { echo "make lock: uv is not installed: see its documentation, or pip install uv" >&2; exit 2; }
	for room in docker/*/; do for lock in requirements dev; do [ ! -f $$room$$lock.in ] || uv pip compile --quiet \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header \
	  --overrides docker/torch-apart.txt $$room$$lock.in --output-file $$room$$lock.txt || exit 1; done; done

clean:  ## Remove the environment and what tools left behind; data, models and DVC's cache stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage* dvc_plots build src/*.egg-info

# The stamps are written last, so a set-up that was interrupted starts again.
$(VENV)/.installed: $(LOCKS)/torch.txt $(LOCKS)/requirements.txt pyproject.toml
	@echo "setup: $(VENV) from the hash locks in $(LOCKS), about two minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: 1/3 PyTorch, 190 MB"
	@$(INSTALL) --require-hashes --extra-index-url $(TORCH_INDEX) -r $(LOCKS)/torch.txt
	@echo "setup: 2/3 $$(grep -c '^[a-z]' $(LOCKS)/requirements.txt) packages"
	@$(INSTALL) --require-hashes -r $(LOCKS)/requirements.txt
	@echo "setup: 3/3 reprise itself"
	@$(INSTALL) --no-build-isolation --editable .
	@$(VENV)/bin/python -m pip check
	@touch $@

$(VENV)/.dev: $(VENV)/.installed $(LOCKS)/dev.txt
	@echo "setup: $$(grep -c '^[a-z]' $(LOCKS)/dev.txt) packages for tests and lint"
	@$(INSTALL) --require-hashes -r $(LOCKS)/dev.txt
	@touch $@
