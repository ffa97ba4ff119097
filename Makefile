# `make demo` and `make test` work from a bare clone: they make their own .venv and install into it.

VENV := .venv
BIN := $(VENV)/bin
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The interpreter: PYTHON=... on the command line, else the first of these that is 3.11 or newer.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(OLD_ENOUGH)' 2>/dev/null && { echo $$python; break; }; done)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
DEMO := runs/demo
GPU_TABLE := runs/gpu.md

.PHONY: help demo test lint gpu gpu-is-here clean

help:
	@echo "make demo    train a few-shot learner (1 to 4 minutes), verify its gradients, draw an episode"
	@echo "make test    lint and run the whole test suite"
	@echo "make lint    ruff check, ruff format --check and mypy"
	@echo "make gpu     on a machine with an NVIDIA GPU: tests and gradients on it, then benchmarks"
	@echo "             into $(GPU_TABLE), against torch where .venv has it"
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

gpu: gpu-is-here $(VENV)/installed-test
	@$(PIP) --editable '.[cupy]'
	@echo "== The tests of the CUDA kernels and of the whole CuPy path, on the hardware =="
	@SCRATCHMETA_TEST_ON=gpu $(BIN)/python -m pytest -k "cupy or cuda"
	@echo "== Every gradient, on the hardware =="
	@$(BIN)/scratchmeta check --backend cupy
	@echo "== Every kernel: kernels off, torch where .venv has it, and the card's ceilings =="
	@$(BIN)/python benchmarks/kernels.py --backend cupy --write $(GPU_TABLE)
	@echo "== Training steps =="
	@{ echo; echo '# Training steps'; echo; echo '```'; $(BIN)/scratchmeta bench --backend cupy && \
		echo '```'; } > $(GPU_TABLE).steps
	@cat $(GPU_TABLE).steps | tee -a $(GPU_TABLE) && rm $(GPU_TABLE).steps
	@echo "The tables are in $(GPU_TABLE)."

gpu-is-here:
	@nvidia-smi -L 2>/dev/null || { echo "no NVIDIA GPU here: nvidia-smi finds none"; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(VENV)/installed-demo: pyproject.toml setup.py | $(VENV)/python-is-new-enough
	@echo "installing into $(VENV) (once, about a minute) ..."
	@$(PIP) --editable '.[plots]'
	@touch $@

$(VENV)/installed-test: pyproject.toml setup.py | $(VENV)/python-is-new-enough
	@echo "installing into $(VENV) (once, about a minute) ..."
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/python-is-new-enough:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(OLD_ENOUGH)' 2>/dev/null || { \
		echo "scratchmeta needs Python 3.11 or newer, got: $(or $(PYTHON),none on PATH); make PYTHON=/path/to/python3.11"; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "could not make $(VENV) with $(PYTHON); on Debian and Ubuntu: apt install python3-venv"; \
		exit 1; }
	@touch $@
