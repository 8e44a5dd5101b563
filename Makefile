# Two commands that do everything on a fresh machine: `make sweep` and `make test`.
PYTHON ?= python3
VENV ?= .venv
DATASET ?=
ARGS ?=
WORKERS ?= 2
PYTEST = $(VENV)/bin/python -m pytest
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: sweep test test-all chaos gpu gpu-ray bench check format clean

sweep: $(VENV)/installed
	$(VENV)/bin/python -m orchestrator.sweep $(DATASET) $(ARGS)

test: $(VENV)/installed-test
	$(PYTEST) $(PARALLEL) $(ARGS)

test-all: test
	$(PYTEST) $(PARALLEL) -m "slow or cluster or browser" $(ARGS)
	$(PYTEST) -m chaos tests/chaos --short $(ARGS)

chaos: $(VENV)/installed-test
	$(PYTEST) -m chaos tests/chaos $(ARGS)

# With the Python of a machine that has a GPU and torch: nothing is installed, and Ray is not needed.
gpu:
	$(PYTHON) -m benchmarks.gpu $(ARGS)

gpu-ray: $(VENV)/installed
	$(VENV)/bin/python -m orchestrator.sweep digits --gpus-per-trial auto --trials 8 --max-epochs 3 --confirm 0 $(ARGS)

bench: $(VENV)/installed-test
	$(VENV)/bin/python -m benchmarks.suite $(ARGS)

check: $(VENV)/installed-test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/installed-test
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV): once, some minutes and up to 6 GB (torch)."
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/bin/python pyproject.toml
	@echo "Installing into $(VENV): once, some minutes and up to 6 GB (torch)."
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/installed
