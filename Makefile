# make sweep    fetch the demo model and data, run the demo sweep, show what to type next
# make test     the whole suite
# make check    lint, types, floors
# make bench    the benchmark tables, alone on the machine: about half an hour on two cores (tests/bench/README.md)
# make gpu-check  what a GPU computes, against a CPU and others; at most eight minutes (tests/gpu/README.md)
# make install  the environment alone
#
# TORCH_INDEX=URL takes torch from another index, for a build that fits your GPU or for a CPU-only one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: install sweep test check bench gpu-check

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifdef TORCH_INDEX
	$(BIN)/pip install --quiet --index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements.lock)"
endif
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $(STAMP)

sweep: $(STAMP)
	$(BIN)/hpo fetch all-MiniLM-L6-v2
	$(BIN)/hpo fetch vader-movie
	$(BIN)/hpo sweep search_spaces/movie-sentiment.yaml

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m tests.bench

# Installs nothing: it takes the environment that is there, or python3 with whatever packages it has.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.gpu --json gpu-check.json
