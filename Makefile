# make demo: a whole search and its robustness report, from nothing.   make test, make check: what CI runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install demo test test-long lint types check bench chaos coverage docs wheel clean

help:
	@echo "make install   a virtual environment in $(VENV) with mcutune in it"
	@echo "make demo      search the built-in planted data, then measure the winner's robustness"
	@echo "make test      all tests"
	@echo "make test-long whole searches on Ray: kills, two nodes; minutes"
	@echo "make check     lint, types and tests: what CI runs"
	@echo "make bench     every figure beside its baseline, into bench/results/; an hour at most"
	@echo "make chaos     kill, fill the disk, flip bits, feed poison; about 25 minutes, seed printed"
	@echo "make coverage  do intervals and tests keep what they promise: 10,000 simulated datasets; minutes"
	@echo "make docs      write docs/cli.md from the commands"
	@echo "make wheel     a wheel in dist/"

# One pip call, so that constraints.txt decides which torch comes.
$(VENV)/.installed: pyproject.toml constraints.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,check,export]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/mcutune search --space quick --data planted
	$(BIN)/mcutune robustness --ckpt quick-planted --protocol fixed --protocol random

# Those with a Ray want the machine for themselves; of the others two run at a time, file by file.
test: install
	failed=0; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray and not long" || failed=$$?; \
	[ $$failed -gt 1 ] || $(BIN)/python -m pytest -m "ray and not long" || failed=$$?; \
	exit $$failed

# Whole searches on Ray with kills, and on two nodes of which one is lost; the benches on small data.
test-long: install
	$(BIN)/python -m pytest -m long tests/ray tests/faults tests/bench

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

# Each figure is a ratio against a baseline of the same minute: leave the machine alone meanwhile.
bench: install
	$(BIN)/python -m bench

# bench/chaos: with SEED=n the same faults again. `python -m bench.chaos stack` kills real searches on Ray, 1 min a kill.
chaos: install
	$(BIN)/python -m bench.chaos $(if $(SEED),--seed $(SEED))

# How often the intervals cover: minutes to hours with --datasets.
coverage: install
	$(BIN)/python -m bench coverage

docs: install
	$(BIN)/python -m mcutune.cli.reference docs/cli.md

wheel: install
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
