# Everything this project does, by name. Each target makes the environment that it needs.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/
PIP := $(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-environments check docs bench build clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 25

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# $(VENV)/has-NAME: the environment with the extra NAME.
$(VENV)/has-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[$*]'
	@touch $@

demo: $(VENV)/has-demo  ## Train five CartPole policies, save them, evaluate the file in a fresh process
	$(RUN)python examples/demo.py

test: $(VENV)/has-test  ## Run the tests
	$(RUN)python -m pytest -n $(WORKERS) --dist worksteal

# Not in `test`: these bring 600 MB, and their environments compile for a minute.
OTHERS := playground craftax xminigrid
test-environments: $(VENV)/has-test $(OTHERS:%=$(VENV)/has-%)  ## Run the tests of environments, also of those that `test` skips
	$(RUN)python -m pytest -n $(WORKERS) tests/test_brax.py tests/test_grid_worlds.py tests/test_environment_training.py \
		tests/test_jumanji.py tests/test_pgx.py tests/test_jaxmarl.py tests/test_pettingzoo.py

check: $(VENV)/has-check docs  ## Lint, format and type-check; build the site
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)pyright

# Not with --quiet: then mkdocs counts no warning, and --strict lets all of them pass.
docs: $(VENV)/has-docs  ## Build the site into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --strict

bench: $(VENV)/has-bench  ## Measure latency, compile time and speed against peers
	$(RUN)python benchmarks/latency.py
	$(RUN)python benchmarks/categorical.py
	$(RUN)python benchmarks/squashed_entropy.py
	$(RUN)python benchmarks/memory.py
	$(RUN)python benchmarks/encoders.py
	$(RUN)python benchmarks/numpy_runner.py
	$(RUN)python benchmarks/files.py

build: $(VENV)/bin/python  ## Build the wheel and the source distribution into dist/
	$(PIP) build
	$(RUN)python -m build --outdir dist .

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
