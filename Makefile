# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Processes that share the tests, one thread each.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo test test-all lint clean

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@# A CUDA build of torch brings its own Triton; beside a CPU build the kernels' interpreter tests need one.
	$(BIN)/python -c "import triton" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check triton==3.6.0
	@touch $(STAMP)

demo: $(STAMP)      ## stream a held-out walkthrough through the shipped model and ask it questions
	$(BIN)/spatial-ttt demo

test: $(STAMP)      ## lint, types, and every test that needs no GPU and no minutes
	scripts/check $(BIN)
	$(PYTEST) -m "not gpu and not slow"

test-all: $(STAMP)  ## the slow ones too
	$(PYTEST)

lint: $(STAMP)
	scripts/check $(BIN)

clean:
	rm -rf $(VENV) build dist out *.egg-info
