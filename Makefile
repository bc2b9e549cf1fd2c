# Reprise. `make help` lists what can be done.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
LOCKS := docker/cpu
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps

# Every command runs with the environment's own programs, as after `source .venv/bin/activate`.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What `make train` and its siblings run. A recipe from the shelf: make train TASK=mrpc MODEL=bert-base-uncased. An
# experiment, with the arguments of `dvc exp run`: make train ARGS="-S train.epochs=3"
RECIPE := $(strip $(if $(TASK),task=$(TASK)) $(if $(MODEL),model=$(MODEL)))
define RUN
$(if $(RECIPE),reprise recipe $(RECIPE))
dvc $(if $(ARGS),exp run $(ARGS),repro)
$(if $(findstring --queue,$(ARGS)),,reprise summary)
endef
export RUN

# How many processes train on this host: make train PROCESSES=2. Several hosts: `reprise train --help`
ifdef PROCESSES
export REPRISE_PROCESSES := $(PROCESSES)
endif

# The folder in docker/ of each kind of machine that targets name.
HARDWARE_cpu := cpu
HARDWARE_gpu := cuda
HARDWARE_tpu := tpu

# What reads the report. Elsewhere than on a Debian as root, what is missing is the user's to install, and the tests say so.
define ENSURE_BROWSER
missing=; for program in chromium npm; do command -v $$program > /dev/null || missing="$$missing $$program"; done; \
if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then echo "install$$missing"; \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing > /dev/null; fi
endef

.PHONY: help setup train seeds prune report verify lint lint-kubernetes format lock clean \
  test test-full test-e2e test-batch-invariance test-chaos test-multihost test-slurm test-s3 test-report test-xla test-images \
  bench bench-prepare bench-data bench-accuracy bench-gpu bench-xla bench-report bench-scaling bench-sharding \
  $(foreach kind,cpu gpu tpu,train-$(kind) shell-$(kind) image-$(kind) check-image-$(kind))

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9 -]*:.*## /{printf "  make %-36s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## Make .venv from the hash locks in docker/cpu

train: setup  ## Cook the recipe in params.yaml (TASK=… MODEL=… from the shelf, ARGS="-S …" as an experiment, PROCESSES=2)
	@bash -ec "$$RUN"

train-cpu train-gpu train-tpu: train-%:  ## The same in the image of that hardware (ENGINE=docker|podman, GPUS=0,1)
	@docker/run $(HARDWARE_$*) bash -ec "$$RUN"

shell-cpu shell-gpu shell-tpu: shell-%:  ## A shell in the image, over this checkout
	@docker/run $(HARDWARE_$*) bash

image-cpu image-gpu image-tpu: image-%:  ## Build the image, if what it is made of has changed
	@docker/run --build $(HARDWARE_$*)

check-image-cpu check-image-gpu check-image-tpu: check-image-%:  ## Build the image again from nothing and compare the digests (podman)
	@docker/check-reproducible $(HARDWARE_$*)

seeds: setup  ## Cook the recipe with several seeds and show the spread (N=5, ARGS="-S …"); `reprise compare` reads it
	@reprise seeds -n $(or $(N),5) $(ARGS)

prune: setup  ## Remove the experiments of other commits than HEAD, after asking
	@reprise prune

report: setup  ## Write all runs on one HTML page that needs no network, report/index.html (RUNS="main gentler")
	@reprise report $(RUNS)

verify: setup  ## Cook a commit again elsewhere and judge every output (REV=…, STRICT=1: nothing but the same bits passes)
	@reprise verify $(REV) $(if $(STRICT),--strict)

test: $(VENV)/.dev  ## Run the tests and measure their coverage
	pytest --cov --cov-report=term:skip-covered --cov-fail-under=90 --durations=10

test-full: $(VENV)/.dev  ## Run the tests that prove in more forms what `make test` proves in one
	pytest -m full --durations=5

test-e2e: $(VENV)/.dev  ## Cook the default recipe in a new clone, offline after fetch, and check the result (N=3 seeds)
	pytest -m e2e -n 0 -s

test-batch-invariance: $(VENV)/.dev  ## Train on 1 to 3 processes and in other micro-batches, and compare every loss
	pytest -m batch_invariance -n 0 -s

test-chaos: $(VENV)/.dev  ## Kill training at random moments, go on, and compare every bit (N=50)
	pytest -m chaos -n 0 -s

test-multihost: $(VENV)/.dev  ## Train on two hosts, here network namespaces, and lose processes and their link (as root)
	@command -v ip > /dev/null || { apt-get update -qq && apt-get install -qq --yes iproute2 > /dev/null; }
	pytest -m multihost -n 0 -s

test-slurm: $(VENV)/.dev  ## Cook on a Slurm cluster of two nodes, stop it, compare the bits (as root on a Debian, installs it)
	pytest -m slurm -n 0 -s

test-report: $(VENV)/.dev  ## Open the report in chromium without a network (as root on a Debian, installs it)
	@$(ENSURE_BROWSER)
	pytest -m report -n 0 --durations=5

test-s3: $(VENV)/.dev  ## Push to and pull from a server that speaks S3, with broken lines and wrong keys
	pytest -m s3 -n 0 -s --durations=5

test-xla: $(VENV)/.dev  ## Prove the TPU's path on XLA's CPU device, in .venv-xla from the locks in docker/tpu (8 GB)
	@$(MAKE) --silent setup VENV=.venv-xla LOCKS=docker/tpu
	pytest -m xla -n 2 -rP

bench: setup  ## Time Reprise beside what people would run instead, in turns, eight minutes on two cores (benchmarks/)
	python benchmarks/training.py
	python benchmarks/around.py

bench-prepare: setup  ## Prepare ten thousand, a hundred thousand and a million pairs, three minutes on two cores
	python benchmarks/around.py --million

bench-data: setup  ## Prepare and train on 100,000 and a million rows within 2 GB a process (ROWS=10000000 for the most)
	python benchmarks/data.py $(or $(ROWS),100000 1000000)

bench-accuracy: setup  ## Train whole with the course's loop and compare the accuracy with reference/'s (SEEDS=5)
	python benchmarks/quality.py

bench-gpu:  ## The same contenders on a GPU at BERT-base's size, in its image, and the bits that come of it there
	@docker/run cuda python benchmarks/gpu.py

bench-report: $(VENV)/.dev  ## The report of many experiments: time, size, and how fast a browser sorts it (EXPERIMENTS=500)
	@$(ENSURE_BROWSER)
	python benchmarks/report.py

bench-scaling: setup  ## What 1, 2 and 4 processes take, beside what a model says that goes on to 512 devices
	python benchmarks/scaling.py

bench-sharding: setup  ## Memory of a process with the whole model and with a divided one, five minutes on two cores
	python benchmarks/sharding.py

bench-xla: $(VENV)/.installed  ## Count XLA's compilations with one, four and any lengths of batches (STEPS=60)
	@$(MAKE) --silent setup VENV=.venv-xla LOCKS=docker/tpu
	python benchmarks/xla_shapes.py

test-images: $(VENV)/.dev  ## Build images and cook in them, as root on a Debian (HARDWARE="cpu cuda tpu")
	pytest -m images -n 0 -s

lint: $(VENV)/.dev lint-kubernetes  ## Check style and types: ruff, mypy, shellcheck, hadolint and the manifests
	ruff check .
	ruff format --check .
	mypy
	shellcheck docker/run docker/check-reproducible docker/make-test-base deploy/kubernetes/train.sh deploy/slurm/train.sbatch .ci/run
	hadolint docker/Dockerfile

# Version 1.33 is the first in which all that they say is settled. Of a kind that it does not know, the checker only warns.
MANIFESTS := $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml deploy/kubernetes/*/*.yaml))
lint-kubernetes: $(VENV)/.dev  ## Check deploy/kubernetes against the schemas of Kubernetes, every key
	@set -o pipefail; kubernetes-validate --strict --kubernetes-version 1.33 $(MANIFESTS) \
	  | awk '!/^INFO/ { print; wrong = 1 } END { exit wrong }'

format: $(VENV)/.dev  ## Format the code
	ruff check --fix .
	ruff format .

# torch itself stands in torch.txt. The CPU's lock comes first: the other hardware takes its versions.
GLIBC := x86_64-manylinux_2_
LOCK := uv pip compile --quiet --generate-hashes --no-header --no-emit-package torch --python-version 3.11
lock:  ## Renew the hash locks of all hardware from docker/*/*.in (needs uv)
	@command -v uv >/dev/null || { echo "make lock: uv is not installed: see its documentation, or pip install uv" >&2; exit 2; }
	cd docker/cpu && $(LOCK) --python-platform $(GLIBC)28 --overrides overrides.txt requirements.in -o requirements.txt
	cd docker/cpu && $(LOCK) --python-platform $(GLIBC)28 dev.in -o dev.txt
	cd docker/cuda && $(LOCK) --python-platform $(GLIBC)28 requirements.in -o requirements.txt
	cd docker/tpu && $(LOCK) --python-platform $(GLIBC)31 requirements.in -o requirements.txt

clean:  ## Remove the environments and what tools left behind; data, models and DVC's cache stay
	rm -rf .dvc/tmp/verify && git worktree prune
	rm -rf $(VENV) .venv-xla .pytest_cache .mypy_cache .ruff_cache .coverage* dvc_plots report build src/*.egg-info

# The stamps are written last, so a set-up that was interrupted starts again.
$(VENV)/.installed: $(LOCKS)/torch.txt $(LOCKS)/requirements.txt pyproject.toml
	@echo "setup: $(VENV) from the hash locks in $(LOCKS), minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: 1/3 PyTorch"
	@$(INSTALL) --require-hashes -r $(LOCKS)/torch.txt
	@echo "setup: 2/3 $$(grep -c '^[a-z]' $(LOCKS)/requirements.txt) packages"
	@# The locked pip and setuptools first: they build what has no wheel, where a build of its own would fetch others.
	@awk '/^[a-z]/ { tool = /^(pip|setuptools)==/ } tool' $(LOCKS)/requirements.txt > $(VENV)/tools.txt
	@$(INSTALL) --require-hashes -r $(VENV)/tools.txt
	@$(INSTALL) --require-hashes --no-build-isolation -r $(LOCKS)/requirements.txt
	@echo "setup: 3/3 reprise itself"
	@$(INSTALL) --no-build-isolation --editable .
	@$(VENV)/bin/python -m pip check
	@$(VENV)/bin/python -m reprise.report.dvc_plots
	@touch $@

$(VENV)/.dev: $(VENV)/.installed $(LOCKS)/dev.txt
	@echo "setup: $$(grep -c '^[a-z]' $(LOCKS)/dev.txt) packages for tests and lint"
	@$(INSTALL) --require-hashes -r $(LOCKS)/dev.txt
	@touch $@
