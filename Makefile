# Everything starts from a machine that has Python >= 3.11, make and a package index; nothing else is assumed.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test test-ray benchmark gradient-noise lint typecheck lock tensorboard
.DELETE_ON_ERROR:

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "honest needs Python >= 3.11; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --offline -e .
	@touch $@

quickstart: $(STAMP)  ## train the two-head model on arithmetic where people are fooled (two CPU cores, < 10 minutes)
	$(BIN)/honest train configs/quickstart.yaml

test: $(STAMP)  ## every test (two CPU cores, 14 minutes)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-ray: $(STAMP)  ## the sweep engine on a Ray that is started here; installs Ray (240 MB), which `make test` does without
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -e '.[ray]'
	$(BIN)/python -m pytest tests/sweep/test_ray.py

benchmark: $(STAMP)  ## tracing cost of the units, throughput against PyTorch and plain Flax, members together: ratios in one run
	$(BIN)/python benchmarks/tracing.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/members.py --processes 16 --steps 50

gradient-noise: $(STAMP)  ## noise of stage one's gradient against its cost, for every option of the phases
	$(BIN)/python benchmarks/gradient_noise.py

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

typecheck: $(STAMP)
	$(BIN)/mypy

tensorboard: $(STAMP)
	$(BIN)/tensorboard --logdir runs

lock: $(STAMP)  ## resolve pyproject.toml again for every Python and platform, with hashes
	VIRTUAL_ENV=$(VENV) UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --extra dev --upgrade pyproject.toml -o requirements.lock
