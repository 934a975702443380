# Everything runs in .venv, made on first use from the pins in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install -q --no-compile --constraint constraints.txt --editable
# Byte code in parallel: pip does it on one core, which takes as long as all the rest.
COMPILE = $(BIN)/python -m compileall -q -j 0 .venv/lib
# A file of tests, or an estimator's properties, share what they compiled: see conftest.py.
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist loadgroup

.PHONY: bench test test-hundred slow planted lint speed notebooks clean

bench: .venv/.suites
	$(BIN)/crl run benchmarks/quick.py --workdir results/quick; failed=$$?; \
	$(BIN)/crl report results/quick && exit $$failed

# A third less to compile; what runs for long is in the slow lane.
test test-hundred: export XLA_FLAGS ?= --xla_backend_optimization_level=0
test: .venv/.dev
	$(PYTEST)

# The same beside a hundred methods more: it must stay within 10 minutes from a cold cache.
test-hundred: .venv/.dev
	XDG_CACHE_HOME=$$(mktemp -d) $(PYTEST) tests tests/conformance/hundred.py

# All of the slow lane, or with FAMILY=scm what lies in tests/scm and its conformance; the
# tests that belong to no family are FAMILY=core. Pytest's 5, no tests, is no failure.
ifeq ($(FAMILY),core)
  LANE = $(wildcard tests/test_*.py)
else
  LANE = $(wildcard $(FAMILY:%=tests/%) $(FAMILY:%=tests/conformance/test_%.py))
endif
slow: .venv/.dev
	@test -z '$(FAMILY)' || test -n '$(strip $(LANE))' || { echo 'no tests of $(FAMILY)'; exit 1; }
	$(PYTEST) -m slow $(LANE) || test $$? = 5

# The errors of tests/planted, one by one: each must be noticed.
planted: .venv/.dev
	$(BIN)/python tests/planted/plant.py

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
