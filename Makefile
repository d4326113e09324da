# DP-MedBench. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
CORES ?= all
GPUS ?= 1
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
RUN := env PATH="$(abspath $(BIN)):$$PATH" OMP_WAIT_POLICY=passive

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==$(shell sed -n 's/^torch==//p' requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m compileall -q -j0 $(VENV)/lib >/dev/null 2>&1 || true # some packages ship files of old Pythons
	@touch $@

.PHONY: install
install: $(STAMP) ## Create the environment in .venv from the pinned requirements

.PHONY: demo
demo: install ## Run the default study on phantoms, raw data to report (about 5 minutes)
	$(RUN) snakemake --cores $(CORES) --resources gpu=$(GPUS)
	@echo "Open in a browser: $$(ls results/*/report.html)"

.PHONY: test
test: install ## Run the tests
	$(RUN) OMP_NUM_THREADS=1 pytest -n auto --dist loadfile

.PHONY: test-envs
test-envs: install ## Make each environment of envs/ and run its steps in it, by --sdm conda (minutes)
	$(RUN) OMP_NUM_THREADS=1 pytest tests/conda --durations=5

.PHONY: test-faults
test-faults: install ## Kill, fill up and starve a small study, print what was lost (minutes)
	$(RUN) python tests/faults

.PHONY: test-slurm
test-slurm: install ## Run a study on a SLURM of its own and let everything go wrong once (minutes)
	$(RUN) OMP_NUM_THREADS=1 pytest tests/slurm -s

.PHONY: lint
lint: install ## Check the code: ruff, snakefmt, snakemake --lint, generated files
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) snakefmt --check Snakefile workflow/rules
	$(RUN) snakemake --lint
	$(RUN) hadolint Containerfile
	cd workflow/scripts && $(RUN) python -m dpmedbench.config_files --check
	cd workflow/scripts && $(RUN) python -m dpmedbench.pins --check
	$(RUN) python benchmarks/performance.py --check

.PHONY: config
config: install ## Renew the comments, schema and key table of the configuration
	cd workflow/scripts && $(RUN) python -m dpmedbench.config_files

.PHONY: pins
pins: install ## Renew requirements.lock, the pins of pyproject.toml and envs/ from what is installed
	cd workflow/scripts && $(RUN) python -m dpmedbench.pins

.PHONY: format
format: install ## Format the code
	$(RUN) ruff check --fix
	$(RUN) ruff format
	$(RUN) snakefmt Snakefile workflow/rules

.PHONY: performance
performance: install ## Renew the tables of docs/performance.md from docs/performance/*.parquet
	$(RUN) python benchmarks/performance.py

.PHONY: test-speed
test-speed: install ## Hold a small private step against an ordinary one, with generous bounds
	$(RUN) python benchmarks/engines.py --networks unet resnet18 --side 64 --rounds 3 \
		--only 'mix_flops abadi' --check 3 1.6

.PHONY: benchmark
benchmark: install ## Measure steps, preprocessing, a training job's start, how a run grows with its cells
	$(RUN) python benchmarks/engines.py
	-$(RUN) python benchmarks/step.py
	-$(RUN) python benchmarks/preprocess.py
	-$(RUN) python benchmarks/study.py --datasets duke
	-$(RUN) python benchmarks/aggregate.py
	-$(RUN) python benchmarks/scale.py
	-$(RUN) python benchmarks/scale.py --start
