# Reprise. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
LOCKS := docker/cpu

# Commands run with the programs of the virtual environment, as after `source .venv/bin/activate`.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What these variables hold is data for a command, never text for make or a shell to run. They are taken from make's
# command line alone: one that was exported for another program does not change what is trained.
VALUES := DATA TASK MODEL TRAIN ARGS N RUNS REV ROWS STRICT PROCESSES DIR
$(foreach name,$(VALUES),$(if $(filter command,$(firstword $(origin $(name)))),\
  $(eval override $(name) := $$(value $(name)))$(eval export $(name)),$(eval override undefine $(name))))

# The commands of `make train` and `make train-*`, with TASK, MODEL, TRAIN, ARGS and DATA as $1 to $5.
# Your own table or folder, TASK being the name of its recipe: make train DATA=reviews.csv
# A recipe from the catalog: make train TASK=mrpc MODEL=bert-base-uncased TRAIN=lora
# An experiment, with arguments of `dvc exp run`: make train ARGS="-S train.epochs=3"
define RUN
if [ -n "$$5" ]; then reprise init $${1:+--name "$$1"} $${2:+-S "model=$$2"} $${3:+-S "train=$$3"} -- "$$5"
elif [ -n "$$1$$2$$3" ]; then reprise compose $${1:+"task=$$1"} $${2:+"model=$$2"} $${3:+"train=$$3"}
fi
if [ -z "$$4" ]; then dvc repro
else
  options=$$(xargs -r printf '%s\n' <<< "$$4")  # splits at spaces and removes quotes
  mapfile -t options <<< "$$options"
  dvc exp run "$${options[@]}"
fi
[[ " $$4 " = *" --queue "* ]] || reprise summary
endef
export RUN

# The number of training processes on this host: make train PROCESSES=2. For several hosts, see `reprise train --help`.
ifdef PROCESSES
export REPRISE_PROCESSES := $(PROCESSES)
endif

# The hardware suffixes of targets, and in a recipe the folder in docker/ whose hardware.yaml names the suffix.
KINDS := $(shell sed -n 's/^target: //p' docker/*/hardware.yaml)
FOLDER = $(patsubst docker/%/hardware.yaml,%,$(shell grep -lx 'target: $*' docker/*/hardware.yaml))

# The programs that open the report. They are installed here only as root on Debian; elsewhere the tests report what is
# missing.
define ENSURE_BROWSER
missing=; for program in chromium npm; do command -v $$program > /dev/null || missing="$$missing $$program"; done; \
if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then echo "install$$missing"; \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing > /dev/null; fi
endef

.PHONY: help setup train seeds prune report verify serve image-serve check-image-serve docs docs-serve lint lint-words lint-kubernetes lint-ci lint-docs format lock audit clean \
  test test-unit test-full test-e2e test-batch-invariance test-chaos test-multihost test-slurm test-s3 test-report test-portable test-xla test-images test-arm64 \
  bench bench-prepare bench-data bench-accuracy bench-kinds bench-xla bench-report bench-scaling bench-sharding bench-launches bench-formats bench-serve prove-gpu \
  $(foreach kind,$(KINDS),train-$(kind) shell-$(kind) image-$(kind) check-image-$(kind))

help:  ## List the targets
	@awk -F ':.*## ' -v kinds='$(KINDS)' 'BEGIN { gsub(" ", ",", kinds) } \
	  /^(\$$\(addprefix )?[a-z][^:]*:.*## / { sub(/^\$$\(addprefix /, "", $$1); sub(/,.*/, "{" kinds "}", $$1); \
	  printf "  make %-27s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## Create .venv from the hash locks in docker/cpu, with uv or pip (PYTHON=… TORCH_INDEX=…)

train: setup  ## Run the recipe in params.yaml (DATA=your table, or TASK=… MODEL=… TRAIN=… of the catalog; ARGS="-S …": experiment; PROCESSES=2)
	@bash -ec "$$RUN" make "$$TASK" "$$MODEL" "$$TRAIN" "$$ARGS" "$$DATA"

$(addprefix train-,$(KINDS)): train-%:  ## Run the recipe in the image of the hardware (ENGINE=docker|podman, GPUS=0,1)
	@docker/run $(FOLDER) bash -ec "$$RUN" make "$$TASK" "$$MODEL" "$$TRAIN" "$$ARGS" "$$DATA"

$(addprefix shell-,$(KINDS)): shell-%:  ## Open a shell in the image, with this checkout mounted
	@docker/run $(FOLDER) bash

$(addprefix image-,$(KINDS)): image-%:  ## Build the image if its inputs have changed
	@docker/run --build $(FOLDER)

$(addprefix check-image-,$(KINDS)): check-image-%:  ## Build the image twice and compare the digests (podman)
	@docker/check-reproducible $(FOLDER)

serve:  ## Serve a folder of `reprise export --format onnx` in an image without torch, on http://127.0.0.1:8080 (DIR=…)
	@docker/run serve "$$DIR"

image-serve:  ## Build the image of `make serve` if its inputs have changed
	@docker/run --build serve

check-image-serve:  ## Build the image of `make serve` twice and compare the digests (podman)
	@docker/check-reproducible serve

seeds: setup  ## Train the recipe with several seeds and show mean and standard deviation (N=5, ARGS="-S …")
	@options=$$(xargs -r printf '%s\n' <<< "$$ARGS") && mapfile -t options <<< "$$options" && \
	  reprise seeds -n "$${N:-5}" $${ARGS:+"$${options[@]}"}

prune: setup  ## Remove experiments based on commits other than HEAD, after confirmation
	@reprise prune

report: setup  ## Write an offline HTML report of all runs to report/index.html (RUNS="main gentler" for some)
	@set -f; reprise report $$RUNS

verify: setup  ## Reproduce a commit in a temporary worktree and grade each output (REV=…, STRICT=1 requires equal bits)
	@reprise verify $${REV:+"$$REV"} $${STRICT:+--strict}

# All tests are read before some are chosen, and those of the shared forms, of ONNX, of sweeps and of the server import their packages.
TESTS := $(VENV)/.dev $(VENV)/.sharing $(VENV)/.onnx $(VENV)/.sweep $(VENV)/.serve
# Tests make and remove some 100,000 files, which takes a tenth of the time in memory, where it has room and runs programs.
test test-full: export PYTEST_DEBUG_TEMPROOT = $(shell findmnt --noheadings --output OPTIONS /dev/shm 2> /dev/null \
  | grep --invert-match --word-regexp noexec > /dev/null && [ "$$(df --output=avail /dev/shm | tail -1)" -gt 8000000 ] && echo /dev/shm)
test: $(TESTS)  ## Run the tests
	pytest --durations=10

test-unit: $(TESTS)  ## Run the tests that neither type a command nor train, in under a minute
	pytest -m unit

# Without FULL=1, targets leave out variants of a test that takes minutes.
SHORT := $(if $(FULL),, and not full)
# All tests but those that other targets run.
OTHERS := e2e images kernels arm64 chaos batch_invariance report xla multihost slurm s3 portable
test-full: $(TESTS)  ## Run the tests and their further variants, and measure the coverage
	pytest -m "not ($(subst $() , or ,$(OTHERS)))" --cov --cov-report=term:skip-covered --cov-fail-under=90 --durations=10

test-e2e: $(TESTS)  ## Run the default recipe in a new clone, offline after fetch, and check its metrics (N=3 seeds)
	pytest -m e2e -n 0 -s

test-batch-invariance: $(TESTS)  ## Train with 1 to 3 processes and other micro-batch sizes, and compare every loss
	pytest -m batch_invariance -n 0 -s

test-chaos: $(TESTS)  ## Kill training at random times, resume it, and compare every bit (N=50)
	pytest -m chaos -n 0 -s

test-multihost: $(TESTS)  ## Train on two network namespaces as hosts, with failing processes and links (root; FULL=1)
	@command -v ip > /dev/null || { apt-get update -qq && apt-get install -qq --yes iproute2 > /dev/null; }
	pytest -m "multihost$(SHORT)" -n 0 -s

test-slurm: $(TESTS)  ## Train on a Slurm cluster of two nodes, interrupt it, compare the bits (root on Debian)
	pytest -m slurm -n 0 -s

test-report: $(TESTS)  ## Open the report in chromium, offline (root on Debian installs chromium)
	@$(ENSURE_BROWSER)
	pytest -m report -n 0 --durations=5

test-s3: $(TESTS)  ## Push to and pull from an S3 server, with broken connections and wrong keys (FULL=1)
	pytest -m "s3$(SHORT)" -n 0 -s --durations=5

test-kernels: $(TESTS) $(VENV)/.kernels  ## Test the kernels for GPUs in Triton's interpreter, and compile them for each GPU
	pytest -m kernels -n 0 -s

test-xla: $(TESTS)  ## Test the TPU code path on XLA's CPU device, in .venv-xla from the locks in docker/tpu (8 GB; FULL=1: all variants)
	@$(MAKE) --silent setup VENV=.venv-xla LOCKS=docker/tpu
	pytest -m "xla$(SHORT)" -n 2 -rP

bench: setup  ## Time Reprise and its baselines, interleaved; eight minutes on two cores
	python benchmarks/training.py
	python benchmarks/overhead.py

bench-prepare: setup  ## Time prepare with 10,000, 100,000 and a million pairs; three minutes on two cores
	python benchmarks/overhead.py --million

bench-data: setup  ## Prepare and train on 100,000 and a million rows within 2 GB per process (ROWS=10000000 for more)
	set -f; python benchmarks/data.py $${ROWS:-100000 1000000}

bench-accuracy: setup  ## Train completely with the course's loop and compare the accuracy with reference/ (SEEDS=5)
	python benchmarks/accuracy.py

bench-kinds: setup  ## Train and time several labels, labels of words and long texts; half an hour on two cores (SEEDS=3)
	python benchmarks/kinds.py

prove-gpu:  ## Prove the promises on a GPU and time the alternatives there, in its image: at most eight minutes (GPUS=0,1 ARGS="--minutes 4")
	@set -f; docker/run cuda python benchmarks/prove_gpu.py $$ARGS

bench-report: $(VENV)/.dev  ## Measure the report of many experiments: time, size, sorting in a browser (EXPERIMENTS=500)
	@$(ENSURE_BROWSER)
	python benchmarks/report.py

bench-scaling: setup  ## Time 1, 2 and 4 processes and compare with a cost model that extrapolates to 512 devices
	python benchmarks/scaling.py

bench-sharding: setup  ## Measure memory per process with a replicated and a sharded model; five minutes on two cores
	python benchmarks/sharding.py

bench-formats: $(VENV)/.onnx  ## Compare the files of exports in ONNX: metric, speed, cold start (MODEL="DIR ...")
	set -f; python benchmarks/formats.py $$MODEL

bench-serve: $(VENV)/.onnx $(VENV)/.serve  ## Time `reprise serve` beside a plain server of the same model (MODEL=DIR of an export in ONNX)
	python benchmarks/serving.py "$$MODEL"

bench-launches: setup  ## Count what a step launches on a GPU, without one, and predict its time; half a minute
	python benchmarks/launches.py

bench-xla: $(VENV)/.installed  ## Count XLA's compilations with one, four and dynamic batch lengths (STEPS=60)
	@$(MAKE) --silent setup VENV=.venv-xla LOCKS=docker/tpu
	python benchmarks/xla_shapes.py

# The emulator is installed here only as root on Debian; elsewhere the tests report that it is missing.
ENSURE_QEMU := command -v qemu-x86_64 > /dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null \
  || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends qemu-user > /dev/null; }
test-portable: $(TESTS)  ## Train on emulated processors and compare every bit (root on Debian installs qemu-user; ALL=1)
	@$(ENSURE_QEMU)
	pytest -m "portable$$([ -n "$$ALL" ] || echo " and not full")" -n 2 tests/e2e/test_portable.py

test-images: $(TESTS)  ## Build images and run the recipe in them, as root on Debian (HARDWARE="cpu cuda tpu" FULL=1)
	pytest -m "images$(SHORT)" -n 0 -s

test-arm64: $(TESTS)  ## Run the tiny recipe on an emulated aarch64 machine, as root on Debian; 45 minutes, 15 GB
	pytest -m arm64 -n 0 -s

docs: $(VENV)/.docs  ## Build the documentation into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict

docs-serve: $(VENV)/.docs  ## Serve the documentation on http://127.0.0.1:8000, and rebuild it while you edit
	@NO_MKDOCS_2_WARNING=1 mkdocs serve

# Ruff's cache does not notice a new folder that is named like a library, which changes the order of imports.
lint: $(VENV)/.dev lint-words lint-kubernetes lint-ci lint-docs  ## Check style, types, manifests, CI definitions and documentation
	ruff check --no-cache .
	ruff format --check .
	mypy
	shellcheck docker/run docker/check-reproducible docker/make-test-arm64 docker/make-test-base docker/make-venv deploy/kubernetes/train.sh deploy/slurm/train.sbatch .ci/run
	hadolint docker/Dockerfile docker/serve/Dockerfile

# Words of an earlier private vocabulary, each with the term to use: CONTRIBUTING.md, "Words".
WORDS := cook(s|ed|ing)?|shelf|shelves|kitchens?|pantry|told|said|lets go|let go of|hangs? on|goes on|go on|gone on
WORDS := $(WORDS)|figures|rooms?|so many|of which|such that|made[- ]up|lies in|what is more|befell|contenders?
lint-words:  ## Check that no word of the earlier private vocabulary comes back
	@git grep -nIiwE '$(WORDS)' -- src tests docs docker deploy recipes benchmarks notebooks README.md CHANGELOG.md mkdocs.yml .github; \
	  case $$? in 0) exit 1;; 1) echo "lint-words: 0 words of the deny-list";; *) exit 2;; esac

# Version 1.33 is the first in which every field used is stable. The checker only warns about an unknown kind, so any
# output other than INFO is an error here.
MANIFESTS := $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml deploy/kubernetes/*/*.yaml))
lint-kubernetes: $(VENV)/.dev  ## Check deploy/kubernetes strictly against the schemas of Kubernetes
	@set -o pipefail; kubernetes-validate --strict --kubernetes-version 1.33 $(MANIFESTS) \
	  | awk '!/^INFO/ { print; wrong = 1 } END { exit wrong }'

lint-ci: $(VENV)/.dev  ## Check the CI definitions against the schemas of GitHub and GitLab
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.gitlab-ci .gitlab-ci.yml

lint-docs: docs  ## Check the links of the documentation, and its numbers against metrics/, reference/ and benchmarks/
	python docs/measured.py

format: $(VENV)/.dev  ## Format the code
	ruff check --fix .
	ruff format .

# torch itself is locked in torch.txt. The CPU lock comes first, because the other hardware takes its versions from it.
GLIBC := x86_64-manylinux_2_
LOCK := $(CURDIR)/.venv-tools/bin/uv pip compile --quiet --generate-hashes --no-header --no-emit-package torch --python-version
lock: .venv-tools/.installed  ## Update the hash locks of all hardware from docker/*/*.in
	cd docker/cpu && $(LOCK) 3.11 --python-platform $(GLIBC)28 --overrides overrides.txt requirements.in -o requirements.txt
	cd docker/cpu && set -e; for group in dev docs sharing kernels onnx sweep tools trackers excel; do \
	  $(LOCK) 3.11 --python-platform $(GLIBC)28 $$group.in -o $$group.txt; done
	cd docker/cuda && $(LOCK) 3.11 --python-platform $(GLIBC)28 requirements.in -o requirements.txt
	cd docker/serve && $(LOCK) 3.11 --python-platform $(GLIBC)28 --overrides overrides.txt requirements.in -o requirements.txt
	cd docker/tpu && $(LOCK) 3.11 --python-platform $(GLIBC)31 requirements.in -o requirements.txt
	@# Without a marker: the same versions and hashes are the solution for every supported Python and architecture.
	@cd docker/cpu && check=$$(mktemp) && for python in $$(sed -n 's/^python: //p' hardware.yaml); do for machine in x86_64 aarch64; do \
	  for lock in requirements dev docs sharing kernels onnx sweep; do cp $$lock.txt $$check; \
	    $(LOCK) $$python --python-platform $$machine-manylinux_2_28 --overrides overrides.txt $$lock.in -o $$check; \
	    diff <(grep -v '^ *#' $$lock.txt) <(grep -v '^ *#' $$check) || { \
	      echo "make lock: $$lock.txt is not the solution for Python $$python on $$machine" >&2; exit 1; }; \
	  done; done; done; rm $$check

audit: setup .venv-tools/.installed  ## Check the locked packages for known vulnerabilities and for their licences
	@$(VENV)/bin/python docker/audit.py

# uv and pip-audit, apart from what trains.
.venv-tools/.installed: docker/cpu/tools.txt | $(VENV)/.installed
	@$(VENV)/bin/python -m venv --without-pip .venv-tools
	@$(VENV)/bin/python -m pip --python .venv-tools/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

clean:  ## Remove virtual environments, caches of tools and reports; keep data, models and DVC's cache
	rm -rf .dvc/tmp/verify && git worktree prune
	rm -rf $(VENV) .venv-xla .venv-tools .pytest_cache .mypy_cache .ruff_cache .coverage* dvc_plots report site build src/*.egg-info

# An environment whose Python was removed, or is not the one that PYTHON names, is created again.
VERSION := -I -c 'import sys; print("%d.%d" % sys.version_info[:2])'
STALE = $(shell test -x $(VENV)/bin/python || echo stale)$(if $(PYTHON),$(shell \
  test -d $(VENV)/lib/python$$($(PYTHON) $(VERSION) 2> /dev/null) || echo stale))

stale:

# The stamps are written last, so that an interrupted set-up starts again.
$(VENV)/.installed: $(LOCKS)/torch.txt $(LOCKS)/requirements.txt pyproject.toml $(if $(STALE),stale)
	@docker/make-venv $(VENV) $(LOCKS)
	@touch $@

$(VENV)/.dev $(VENV)/.docs $(VENV)/.sharing $(VENV)/.kernels $(VENV)/.onnx $(VENV)/.sweep: $(VENV)/.%: $(VENV)/.installed $(LOCKS)/%.txt
	@docker/make-venv --add $(VENV) $(LOCKS)/$*.txt
	@touch $@

$(VENV)/.serve: $(VENV)/.installed docker/serve/requirements.txt
	@docker/make-venv --add $(VENV) docker/serve/requirements.txt
	@touch $@
