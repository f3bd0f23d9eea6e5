# Everything a checkout needs; `make` alone lists the targets. CI runs the same ones (.ci/run).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first of these that runs and is a version we support; override with `make build PYTHON=/path/to/python3.12`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& { command -v "$$p"; break; }; done)

VENV := .venv
PY := $(VENV)/bin/python
TALLYFLOW := $(VENV)/bin/tallyflow
# One more than CI has cores: tests wait for processes and files.
PYTEST_WORKERS ?= 3

.PHONY: help build run test test-fast sim soak fuzz sanitize debug lint bench report instructions baseline trillion clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(VENV)/.installed ## Make .venv with Tallyflow and its tools; rebuild what changed in src/_core
	@# Importing _core compares every extension with its sources, so this costs nothing where nothing changed.
	@$(PY) -c 'import _core' 2>/dev/null || $(PY) setup.py -q build_ext --inplace
	@$(PY) -c 'import _core' 2>/dev/null || $(PY) setup.py -q build_ext --inplace --force
	@$(PY) -c 'import flow.kernels'

$(VENV)/.installed: pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or 3.12 on PATH; name one: make build PYTHON=..." >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'  # the first that knows --group
	@$(PY) -m pip install --quiet --group dev
	@$(PY) -m pip install --quiet --no-build-isolation --editable .
	@touch $@

run: build ## Bill 3 million synthetic events into an embedded store under ./run, and open an invoice
	@rm -rf run && mkdir run
	@cp src/flow/samples/run.yaml run/config.yaml
	@cp src/flow/samples/prices.yaml run/prices.yaml
	@$(TALLYFLOW) run run/config.yaml
	@echo
	@$(TALLYFLOW) invoice customer-0001 --period 2026-11 --by feature,day -c run/config.yaml
	@echo
	@echo 'The store is in run/store, its config is run/config.yaml. Next, for example:'
	@echo '  $(TALLYFLOW) sql "SELECT * FROM usage_by_hour ORDER BY amount DESC LIMIT 10" -c run/config.yaml'
	@echo '  $(TALLYFLOW) sql "SELECT reason, count() FROM rejected_events GROUP BY reason" -c run/config.yaml'
	@echo '  $(TALLYFLOW) invoice customer-0002 --period 2026-11-02 --by project,hour -c run/config.yaml'

test: build ## Run all tests
	@$(PY) -m pytest -n $(PYTEST_WORKERS) --dist worksteal

test-fast: build ## Run the tests that are not marked slow
	@$(PY) -m pytest -n $(PYTEST_WORKERS) --dist worksteal -m 'not slow'

SEED ?= 1
FROM ?= 1000
sim: build ## Repeat one seed of the simulator, telling what happens: make sim SEED=7
	@$(PY) -m tests.sim $(SEED) --verbose

soak: build ## Thousands of seeds of the simulator, from FROM on; stops at the first that fails
	@$(PY) -m tests.sim --seeds 5000 --from $(FROM)

MESSAGES ?= 1000000
fuzz: build ## Hold decode against its oracle on made-up and damaged messages: make fuzz MESSAGES=5000000 SEED=1
	@$(PY) -m tests.fuzz --messages $(MESSAGES) --seed $(SEED)

CHECKED_TESTS ?= tests
CHECKED_MESSAGES ?= 10000
MAY_LACK_SANITIZERS ?=
CC_USED = $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_config_var("CC").split()[0])')
sanitize: build ## Run all tests, and the fuzzer, under ASan and UBSan, or UBSan alone if they start the engine
	@runtime=$$($(CC_USED) -print-file-name=libasan.so); \
	if ! [ -e "$$runtime" ]; then \
		echo "NOT CHECKED: $(CC_USED) has no libasan.so, so nothing was run under AddressSanitizer and UBSan;" \
			"install the sanitizer runtime of that compiler" >&2; \
		test -n "$(MAY_LACK_SANITIZERS)"; exit; \
	fi; \
	$(MAKE) checked NAME=sanitize SWITCH=CORE_SANITIZE=1 \
		RUNTIME="env LD_PRELOAD='$$runtime $$($(CC_USED) -print-file-name=libstdc++.so.6)' $(SANITIZER_SETTINGS)"; \
	$(MAKE) checked NAME=undefined SWITCH=CORE_SANITIZE=undefined RUNTIME="env UBSAN_OPTIONS=print_stacktrace=1"

# The library of C++ is there from the beginning, since ASan catches the exceptions of Arrow only if it saw it load.
# Python frees little at its end, which is no leak of ours; its own allocator would hide what is written beside a block.
# ASan refuses the embedded engine: what needs it is skipped there, and runs under UBSan alone, where the parity tests
# and the seeds of the simulator are skipped (tests/conftest.py). Of those, ASan has the first 60 of 200: all take longer
# there than everything else.
SANITIZER_SETTINGS := ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	TALLYFLOW_SIM_SEEDS=60

debug: build ## Run all tests, and the fuzzer, with kernels that are not optimised and check their indices
	@$(MAKE) checked NAME=debug SWITCH=CORE_DEBUG=1

# Builds the kernels from a copy of the sources, so that those beside src/_core stay what they are, and runs with them.
# What a sanitizer says as it ends the process must not be held back: --capture=sys leaves file descriptors alone.
.PHONY: checked
checked:
	@mkdir -p build/$(NAME)/src && rm -rf build/$(NAME)/src/flow build/$(NAME)/src/_core/*.p*
	@tar -cf - --exclude='*.so' --exclude='*.c' --exclude=__pycache__ src setup.py pyproject.toml | tar -C build/$(NAME) -xf -
	@cd build/$(NAME) && $(SWITCH) $(abspath $(PY)) setup.py -q build_ext --inplace -j 2 >build.log 2>&1 || { cat build.log; exit 1; }
	@export PYTHONPATH=$(CURDIR)/build/$(NAME)/src $(SWITCH); \
	$(RUNTIME) $(PY) -c 'import _core; assert "/build/$(NAME)/" in _core.__file__, _core.__file__'; \
	$(RUNTIME) $(PY) -m pytest $(CHECKED_TESTS) -n $(PYTEST_WORKERS) --dist worksteal -p no:cacheprovider --capture=sys; \
	$(RUNTIME) $(PY) -m tests.fuzz --messages $(CHECKED_MESSAGES)

lint: build ## Check style and types: ruff, mypy --strict, cython-lint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src/_core  # it calls pycodestyle by name

ONLY ?=
FULL ?=
bench: $(VENV)/.bench ## Run the benchmarks (ONLY="rating rules", FULL=1), and tell what they come to
	@$(PY) benchmarks/bench.py $(if $(FULL),--full) $(ONLY)

trillion: build ## Bill a billion events of a trillion tokens, exact against their seed; EVENTS=N: fewer
	@$(PY) benchmarks/trillion.py $(if $(EVENTS),--events $(EVENTS))

report: $(VENV)/.bench ## Draw what the results of the benchmarks say: report.html
	@$(PY) benchmarks/report.py

MAY_LACK_VALGRIND ?=
instructions: build ## Count what instructions the kernels take, under valgrind; 10 % more than accepted is an error
	@$(PY) benchmarks/instructions.py $(if $(MAY_LACK_VALGRIND),--may-lack-valgrind)

baseline: build ## Accept the instructions that the kernels take now
	@$(PY) benchmarks/instructions.py --accept

$(VENV)/.bench: build pyproject.toml
	@$(PY) -m pip install --quiet --group bench
	@touch $@

clean: ## Remove what was built; run/ and .venv stay
	@rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	@rm -f src/_core/*.c src/_core/*.so
