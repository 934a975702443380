# Everything runs in .venv, made on first use from the pins in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: bench test slow lint speed notebooks clean

bench: $(STAMP)
	$(BIN)/crl run benchmarks/quick.py --workdir results/quick; failed=$$?; \
	$(BIN)/crl report results/quick && exit $$failed

test: $(STAMP)
	$(BIN)/python -m pytest -q

slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

speed: $(STAMP)
	$(BIN)/python -m benchmarks.speed

notebooks: $(STAMP)
	$(BIN)/python notebooks/run.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv results
