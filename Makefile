# The README's commands. They need python3 (3.11 to 3.13) and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv train test lint bench bench-gpu bench-peers faults fuzz golden ui clean

help: ## show this page
	@echo "usage: make TARGET [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## create .venv and install negrec with its tools into it

# Again only when what is to be installed changes.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing negrec and what it needs into $(VENV) (some minutes, once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
		-c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e '.[dev]'
	touch $@

train: $(STAMP) ## run `negrec train` on the embedded data set; ARGS='sampler=genni alpha=2.5'
	$(BIN)/negrec train $(ARGS)

test: $(STAMP) ## run the tests, on all cores; ARGS='-m "not slow"'
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(STAMP) ## check style, types and who imports whom
	$(BIN)/ruff format --check negrec tests
	$(BIN)/ruff check negrec tests
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## measure speed and memory, as ratios within one run; ARGS=--rounds=3
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-gpu: $(STAMP) ## measure this machine's GPU: training, attention, evaluation; ARGS=--rounds=3
	$(BIN)/python -m tests.benchmarks.gpu $(ARGS)

bench-peers: $(STAMP) ## measure RecTools and RecBole beside negrec, each in an environment of its own
	$(BIN)/python -m tests.benchmarks.peers $(ARGS)

faults: $(STAMP) ## kill, starve and damage real runs, for some minutes; ARGS='-k kill'
	$(BIN)/python -m pytest tests/faults --long $(ARGS)

fuzz: $(STAMP) ## 2,000 random tables and configurations
	$(BIN)/python -m pytest tests/fuzz --long $(ARGS)

golden: $(STAMP) ## write the stored losses of tests/golden anew; the tests compare with them
	NEGREC_WRITE_GOLDEN=1 $(BIN)/python -m pytest tests/golden $(ARGS)

ui: $(STAMP) ## open MLflow's pages over the runs of this folder
	$(BIN)/negrec ui $(ARGS)

clean: ## remove the environments, caches and build outputs; runs and data stay
	rm -rf $(VENV) .venv-peers build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
