# Everything runs in .venv, made on first use from the pins in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install -q --no-compile --constraint constraints.txt --editable
# Byte code in parallel: pip does it on one core, which takes as long as all the rest.
COMPILE = $(BIN)/python -m compileall -q -j 0 .venv/lib
# Each file of tests stays in one process, where it shares what it compiled.
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist loadfile

.PHONY: bench test slow lint speed notebooks clean

bench: .venv/.suites
	$(BIN)/crl run benchmarks/quick.py --workdir results/quick; failed=$$?; \
	$(BIN)/crl report results/quick && exit $$failed

test: .venv/.dev
	$(PYTEST)

slow: .venv/.dev
	$(PYTEST) -m slow

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

speed: .venv/.dev
	$(BIN)/python -m benchmarks.speed

notebooks: .venv/.dev
	$(BIN)/python notebooks/run.py

# What the suites and their report need, and on top of it what developers need.
.venv/.suites: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[report,data]' && $(COMPILE)
	@touch $@

.venv/.dev: .venv/.suites
	$(INSTALL) '.[dev]' && $(COMPILE)
	@touch $@

clean:
	rm -rf .venv results
