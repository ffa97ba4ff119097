# `make demo` and `make test` work from a bare clone: they make their own .venv and install into it.

VENV := .venv
BIN := $(VENV)/bin
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The interpreter: PYTHON=... on the command line, else the first of these that is 3.11 or newer.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(OLD_ENOUGH)' 2>/dev/null && { echo $$python; break; }; done)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
DEMO := runs/demo
OUT := runs/gpu
WHEELS :=
# The interpreter that has CuPy. A rehearsal makes one of its own, as it is on a machine with a card
# (torch and JAX left out, for their size), unless one is given.
GPU_PYTHON := python3
GPU_VENV := .venv-gpu
GPU_PACKAGES := cupy-cuda13x==14.2.0 numpy numba numba-cuda pytest pytest-xdist hypothesis \
	matplotlib pillow safetensors mpi4py
ifeq ($(origin GPU_PYTHON),file)
REHEARSAL_PYTHON := $(GPU_VENV)/bin/python
REHEARSAL_WHEELS := $(GPU_VENV)/wheels
REHEARSAL_NEEDS := $(GPU_VENV)/installed
else
REHEARSAL_PYTHON := $(GPU_PYTHON)
endif

.PHONY: help demo test lint gpu gpu-wheels gpu-rehearsal gpu-is-here clean

help:
	@echo "make demo    train a few-shot learner (1 to 4 minutes), verify its gradients, draw an episode"
	@echo "make test    lint and run the whole test suite"
	@echo "make lint    ruff check, ruff format --check and mypy"
	@echo "make gpu     on a machine with an NVIDIA GPU: tests, gradients, benchmarks, trainings in"
	@echo "             11 minutes, into OUT=$(OUT); installs nothing, GPU_PYTHON=python3 has CuPy,"
	@echo "             WHEELS=DIR has what else it lacks (make gpu-wheels fills it, with a network)"
	@echo "make gpu-rehearsal   the same without a GPU, at little sizes, on a stand-in"
	@echo "make clean   delete .venv and everything built; runs/ stays"
	@echo "PYTHON=...   the interpreter to make .venv with, 3.11 or newer"

demo: $(VENV)/installed-demo
	@echo "== Prototypical Networks on generated characters, 5-way 1-shot =="
	@$(BIN)/scratchmeta train prototypical --data glyphs --preset quick --out $(DEMO) --overwrite
	@echo "== Accuracy on alphabets it has never seen =="
	@$(BIN)/scratchmeta evaluate $(DEMO)
	@echo "== Are its gradients right? Compared with numerical ones, first and second order =="
	@$(BIN)/scratchmeta check prototypical
	@echo "== Pictures =="
	@$(BIN)/scratchmeta plot $(DEMO)
	@echo
	@echo "The run is in $(DEMO), an episode with its predictions in $(DEMO)/episode.png."
	@echo "Next:  $(BIN)/scratchmeta evaluate $(DEMO) --n-way 20"
	@echo "       $(BIN)/scratchmeta train maml --data sinusoids"
	@echo "       $(BIN)/scratchmeta check"

test: $(VENV)/installed-test lint
	@$(BIN)/python -m pytest -n auto --maxprocesses 4

lint: $(VENV)/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

gpu: gpu-is-here
	@$(GPU_PYTHON) benchmarks/gpu.py --out $(OUT) $(addprefix --wheels ,$(WHEELS))

gpu-wheels:
	@$(GPU_PYTHON) -m pip --quiet --disable-pip-version-check download --only-binary=:all: \
		--dest $(or $(WHEELS),.whl) rich tyro
	@echo "the wheels are in $(or $(WHEELS),.whl): make gpu WHEELS=$(or $(WHEELS),.whl)"

gpu-rehearsal: $(REHEARSAL_NEEDS)
	@PIP_NO_INDEX=1 $(REHEARSAL_PYTHON) benchmarks/gpu.py --rehearsal --out runs/gpu-rehearsal \
		$(addprefix --wheels ,$(or $(WHEELS),$(REHEARSAL_WHEELS)))

gpu-is-here:
	@nvidia-smi -L 2>/dev/null || { echo "no NVIDIA GPU here: nvidia-smi finds none"; exit 1; }

clean:
	rm -rf $(VENV) $(GPU_VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(VENV)/installed-demo: pyproject.toml setup.py | $(VENV)/python-is-new-enough
	@echo "installing into $(VENV) (once, about a minute) ..."
	@$(PIP) --editable '.[plots]'
	@touch $@

$(VENV)/installed-test: pyproject.toml setup.py | $(VENV)/python-is-new-enough
	@echo "installing into $(VENV) (once, about a minute) ..."
	@$(PIP) --editable '.[test]'
	@touch $@

$(GPU_VENV)/installed: $(VENV)/python-is-new-enough
	@for python in python3.12 $(PYTHON); do \
		$$python -c '' 2>/dev/null && { $$python -m venv $(GPU_VENV); break; }; done
	@echo "installing into $(GPU_VENV) (once, about a minute) ..."
	@$(GPU_VENV)/bin/python -m pip --quiet --disable-pip-version-check install $(GPU_PACKAGES)
	@$(MAKE) --no-print-directory gpu-wheels GPU_PYTHON=$(GPU_VENV)/bin/python WHEELS=$(GPU_VENV)/wheels
	@touch $@

$(VENV)/python-is-new-enough:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(OLD_ENOUGH)' 2>/dev/null || { \
		echo "scratchmeta needs Python 3.11 or newer, got: $(or $(PYTHON),none on PATH); make PYTHON=/path/to/python3.11"; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "could not make $(VENV) with $(PYTHON); on Debian and Ubuntu: apt install python3-venv"; \
		exit 1; }
	@touch $@
