# Every target sets itself up: a machine with Python 3.11+ and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= auto
PYTEST := $(BIN)/python -m pytest -q
FAST   := -m "not slow and not gpu"
SLOW   := -m "slow and not gpu"

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-slow test-oracles fuzz lint types bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.ready ## build a plan of a trained LeNet, load it in a fresh process, classify handwritten digits
	@$(BIN)/python examples/digits/demo.py

test: test-fast test-slow ## all tests: the fast part first

test-fast: $(VENV)/.ready-test ## unit and golden tests, under three minutes on two cores
	$(PYTEST) -n $(JOBS) $(FAST) tests

test-slow: $(VENV)/.ready-test ## suites, fuzzing and the model zoo
	$(PYTEST) -n $(JOBS) $(SLOW) tests

test-oracles: $(VENV)/.ready-oracles ## models against TensorFlow and OpenCV; installs both (350 MB)
	TF_CPP_MIN_LOG_LEVEL=3 $(PYTEST) -n $(JOBS) $(FAST) tests/importers/tensorflow tests/importers/caffe/test_opencv.py

fuzz: $(VENV)/.ready-test ## 2,000 damaged ONNX files through the whole road: typed errors or right results
	$(BIN)/python -m tests.fuzz.files --count 2000

lint: $(VENV)/.ready-test ## ruff
	$(BIN)/ruff check .

types: $(VENV)/.ready-test ## mypy --strict
	$(BIN)/mypy

docs: $(VENV)/.ready-test ## rewrite the generated pages of docs/
	$(BIN)/python docs/generate.py

bench: $(VENV)/.ready-test ## latency of the example network against the peers that are installed
	$(BIN)/tensorwright bench examples/digits/lenet_digits.onnx --vs onnxruntime,openvino

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# -- set-up: the stamps are as old as pyproject.toml allows -------------------------------------------------
$(VENV)/.ready: pyproject.toml | $(BIN)/python
	@echo "installing tensorwright into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(BIN)/python
	@echo "installing tensorwright and its test tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-oracles: $(VENV)/.ready-test
	@echo "installing TensorFlow and OpenCV into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[tensorflow,opencv]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tensorwright needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python cannot make virtual environments (no ensurepip)." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv. Then run make again." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
