# Everything works in a virtual environment of its own, .venv, which the first target makes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find src csrc -type f -not -name '*.pyc')
CXX_FILES := $(shell find csrc -name '*.cpp' -o -name '*.h')
HOST_FILES := $(filter-out csrc/kernels%,$(wildcard csrc/*.cpp))

# Another environment for the benchmarks, used as it is: make bench BENCH_PYTHON=/path/bin/python
BENCH_PYTHON := $(BIN)/python
BENCH_RUN := bench/results/run.json
# What is slow is timed three times, all else for half a second.
BENCH_TIMES := --benchmark-max-time=0.5 --benchmark-min-rounds=3
# Installs into .venv alone.
OWN = $(if $(filter $(BIN)/python,$(BENCH_PYTHON)),$(VENV)/.installed-$(1))

.PHONY: demo test bench bench-peers bench-publish bench-compare report docs lint format dev clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --pyargs tests README.md docs headwise

# Times, into bench/results/run.json, and reports, into run.html and run.md beside it.
# BENCH_ARGS=--benchmark-disable checks the results and times nothing.
bench: $(call OWN,test)
ifneq ($(findstring --benchmark-disable,$(BENCH_ARGS)),)
	$(BENCH_PYTHON) -m pytest bench $(BENCH_ARGS)
else
	mkdir -p $(dir $(BENCH_RUN))
	$(BENCH_PYTHON) -m pytest bench --benchmark-json=$(BENCH_RUN) $(BENCH_TIMES) $(BENCH_ARGS)
	$(BENCH_PYTHON) bench/report.py $(BENCH_RUN)
endif

# Installs what headwise is held against: torch and others, some GB.
bench-peers: $(VENV)/.installed-test
	$(BIN)/pip install --quiet '.[bench]'

# Makes that run the one which the README and the documentation show.
bench-publish: $(call OWN,test)
	$(BENCH_PYTHON) bench/report.py $(BENCH_RUN) --publish

# Makes them again from the run that they show.
report: $(call OWN,test)
	$(BENCH_PYTHON) bench/report.py

# Builds and times headwise as it is at a commit and as it is here: has anything become slower?
BASE ?= HEAD
bench-compare: $(call OWN,dev)
	$(BENCH_PYTHON) bench/against.py $(BASE) $(BENCH_ARGS)

# Into build/docs; a warning is an error. Neither building it nor reading it needs a network.
docs: $(VENV)/.installed-docs
	rm -rf build/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env \
		--doctree-dir build/doctrees docs build/docs
	$(BIN)/python tools/check_site.py build/docs

# The edit loop: after a change of C++ or Cython run it again, it builds what changed.
dev: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --no-build-isolation -Cbuild-dir=build -e .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/clang-tidy --quiet $(HOST_FILES) -- -std=c++20 -Icsrc/include

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# Each extra holds the one before it.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet '.[text]'
	touch $@

$(VENV)/.installed-test: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet '.[test]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet '.[docs]'
	touch $(VENV)/.installed $(VENV)/.installed-test $@

$(VENV)/.installed-dev: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet '.[dev]'
	touch $(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-docs $@
