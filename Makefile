# Epicrisis: set-up, demonstration, tests. Needs git, make and Python 3.11 or newer; never root.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ENGINE ?= cpu
TORCH_VERSION ?= 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_WORKERS ?= 3
BENCH_ARGS ?=
MUTATE_ARGS ?=
STAMP := $(VENV)/.epicrisis-$(ENGINE)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test sealed check format bench mutate clean-demo

help: ## Show what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## Install everything into .venv (a second call does nothing; a broken one resumes)

$(STAMP): pyproject.toml ops/requirements/cpu.txt
	@ops/setup $(PYTHON) $(VENV) $(ENGINE) $(TORCH_VERSION) $(TORCH_CPU_INDEX)
	@touch $@

demo: setup ## Six synthetic charts: read, summarised, filed back, shown on a local page
	@exec $(BIN)/epicrisis demo $(DEMO_ARGS)

test: setup tests/node/node_modules/.installed ## All tests that this machine can run
	@ops/test $(BIN)/python $(TEST_WORKERS) $(TEST_ARGS)

# Needs the right to make a network namespace: root, or a kernel that gives it to users (`unshare -rn`).
sealed: setup tests/node/node_modules/.installed ## The acceptance tests in a network without a way out
	@unshare -n sh -c 'ip link set lo up && exec ops/test $(BIN)/python $(TEST_WORKERS) tests/acceptance $(TEST_ARGS)'

# Validators that are not ours, and the accessibility checker; without npm their tests skip.
tests/node/node_modules/.installed: tests/node/package-lock.json
	@if command -v npm >/dev/null; then \
	    echo "[setup] installing the test validators from npm" >&2; \
	    npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --loglevel=error >&2; \
	fi
	@mkdir -p $(@D) && touch $@

check: setup ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup ## Our work beside a baseline on the same work, as a table
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

mutate: setup ## Change the grounding rules in 300 places, one at a time: which changes no test notices
	@$(BIN)/python -m tests.mutation $(MUTATE_ARGS)

clean-demo: ## Remove the demonstration's data, its EHR and its model
	@rm -rf .epicrisis
