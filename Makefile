# `make demo` and `make test` are the two commands of the README; the rest is for those who change the code.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps

.PHONY: help demo demo-quick test test-long lint format docs lock clean
help:            ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "fairdx needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: nothing is installed twice, and pyproject.toml is the only list of packages.
$(STAMPS)/%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@mkdir -p $(STAMPS) && touch $@

demo: $(STAMPS)/train  ## the whole way on the built-in phantom; leaves demo/report.html
	$(BIN)/fairdx demo --out demo

demo-quick: $(STAMPS)/train  ## the same on fewer and smaller images, in a minute; leaves demo-quick/report.html
	$(BIN)/fairdx demo --quick --out demo-quick

# A process for each processor, one thread each: threads of torch that wait for each other waste both.
test: $(STAMPS)/train,test  ## every test but the long studies
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-long: $(STAMPS)/train,test  ## the long studies: coverage of intervals, training at full size
	$(BIN)/python -m pytest -m long

lint: $(STAMPS)/train,test,lint  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks --allow-untyped-calls --no-warn-return-any
	$(BIN)/lint-imports

format: $(STAMPS)/train,test,lint  ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMPS)/docs  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

# `test` brings the extras that tests need. mlflow allows neither the pandas nor the pyarrow of the tests.
LOCKED := train test docs lint tensorboard wandb
# Versions that constraints.txt names are kept; of all others those of the old file, as far as they still fit.
lock: $(BIN)/python  ## pin every package of every extra but mlflow, with hashes, into requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  $(addprefix --extra ,$(LOCKED)) --custom-compile-command 'make lock' -c constraints.txt pyproject.toml -o requirements.lock

clean:           ## remove what the targets above made
	rm -rf $(VENV) demo demo-quick site build .pytest_cache .mypy_cache .ruff_cache .hypothesis
