# Everything this project does, by name. Each target makes the environment that it needs.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/
PIP := $(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-more newest run-newest test-environments check pyright mypy ruff docs bench \
	bench-quick bench-deploy lerax build clean
# Tests start many processes, each of which would compile our modules again where nothing is written down.
unexport PYTHONDONTWRITEBYTECODE

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 25

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# $(VENV)/has-NAME: the environment with the extra NAME.
$(VENV)/has-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[$*]'
	@touch $@

# `make demo ENV=gymnasium:CartPole-v1`: another environment, with the extra of its package.
PACKAGE := $(if $(findstring :,$(ENV)),$(firstword $(subst :, ,$(ENV))))
demo: $(VENV)/has-demo $(PACKAGE:%=$(VENV)/has-%)  ## Train five CartPole policies, save them, evaluate the file in a fresh process
	$(RUN)python examples/demo.py $(if $(ENV),--env $(ENV))

# Left to `test-more`: other people's environments, trainers and runtimes, eight devices,
# several processes, what takes long to compile, and what runs in node, in Chromium and by a C compiler.
MORE := bare_install benchmark_scripts brax c_source campaigns demo_page dependent_actions devices \
	env_actions environment_training exports finetune grid_worlds gsde gymnasium gymnasium_training gymnax hosts \
	imports_brax imports_flax imports_robots imports_sb3 iree javascript jaxmarl jumanji kernels multi_agent onnx \
	orbax part_heads pettingzoo pgx popart population_example scaling stablehlo trainer_brax trainer_lerax \
	trainer_purejaxrl trainer_rejax
PAGES := deploy environments trainers
test: $(VENV)/has-test  ## Run the tests, all but the slowest
	$(RUN)python -m pytest -n $(WORKERS) --dist worksteal $(MORE:%=--ignore=tests/test_%.py)

test-more: $(VENV)/has-test $(VENV)/has-test-more  ## Run the slowest tests: environments and trainers of other packages, eight devices
	$(RUN)python -m pytest -n $(WORKERS) --dist worksteal $(MORE:%=tests/test_%.py) \
		$(PAGES:%='tests/test_docs.py::test_code_of_a_page_runs_and_prints_what_follows_it[docs/%.md]')

# A part of the tests on versions newer than constraints.txt has, in an environment of its own without gymnax,
# which the newest jax may break. Where there is no newer Python it succeeds, and says that nothing was run.
NEWEST := policy modes fingerprint file_format files static
newest:  ## Run the tests of the core on the newest Python and the newest jax there are
	@for python in python3.13 python3.12 $(wildcard $(foreach v,3.13 3.12,$(HOME)/.pyenv/versions/$v.*/bin/python)); do \
	    if $$python -c '' 2>/dev/null; then \
	        exec $(MAKE) --no-print-directory PYTHON=$$python VENV=.venv-newest run-newest; \
	    fi; \
	done; echo "make newest: no Python 3.12 or 3.13 was found, so nothing was run"

run-newest: $(VENV)/bin/python
	grep -vE '^(jax|jaxlib|ml_dtypes|numpy|opt_einsum|scipy)==' constraints.txt > $(VENV)/constraints.txt
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt \
	    --upgrade jax jaxlib numpy -e '.[test-core]'
	@$(RUN)python -c 'import sys, jax; print("Python", sys.version.split()[0], "with jax", jax.__version__)'
	$(RUN)python -m pytest -n $(WORKERS) --dist worksteal $(NEWEST:%=tests/test_%.py)

# These bring 700 MB, and their environments compile for a minute.
OTHERS := playground craftax xminigrid navix
test-environments: $(VENV)/has-test-more $(OTHERS:%=$(VENV)/has-%)  ## Run the tests of environments, also of those that `test-more` skips
	$(RUN)python -m pytest -n $(WORKERS) tests/test_brax.py tests/test_grid_worlds.py tests/test_environment_training.py \
		tests/test_jumanji.py tests/test_pgx.py tests/test_jaxmarl.py tests/test_pettingzoo.py

# Side by side, the longest first, once all that they need is installed. `make check BENCH=1` compares some speeds
# with recorded ones, too.
check: $(VENV)/has-check $(VENV)/has-docs  ## Lint, format and type-check; build the site
	@$(MAKE) --no-print-directory --jobs=$(WORKERS) pyright mypy docs ruff
	@$(if $(BENCH),$(MAKE) --no-print-directory bench-quick)

pyright mypy: $(VENV)/has-check
	$(RUN)$@

ruff: $(VENV)/has-check
	$(RUN)ruff check .
	$(RUN)ruff format --check .

# Not with --quiet: then mkdocs counts no warning, and --strict lets all of them pass.
docs: $(VENV)/has-docs  ## Build the site into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --strict

bench: $(VENV)/has-bench lerax  ## Measure speed against peers and write docs/benchmarks.md, in 15 minutes on two cores
	$(RUN)python -m benchmarks

bench-quick: $(VENV)/has-bench  ## Compare some ratios with benchmarks/recorded.json, in two minutes; fails where one is worse
	$(RUN)python -m benchmarks --quick

bench-deploy: $(VENV)/has-bench  ## Measure policies in other runtimes, and the parts of a load and a call, for their pages
	$(RUN)python benchmarks/parts.py
	$(RUN)python benchmarks/deploy.py

# A peer that needs a newer Python, and packages that the others hold back. Without it the page says so.
lerax: .venv-lerax/bin/has-lerax
.venv-lerax/bin/has-lerax:
	@for python in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python); do \
	    if $$python -c '' 2>/dev/null && $$python -m venv .venv-lerax && .venv-lerax/bin/python -m pip install \
	        --quiet --disable-pip-version-check lerax chex msgpack typing-extensions; then touch $@; exit 0; fi; \
	done; rm -rf .venv-lerax; echo "make lerax: no Python 3.13 was found that its release installs on"

build: $(VENV)/bin/python  ## Build the wheel and the source distribution into dist/
	$(PIP) build
	$(RUN)python -m build --outdir dist .

clean:  ## Remove what the other targets made
	rm -rf $(VENV) .venv-newest .venv-lerax build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
