# The two commands of the README are `make demo` and `make test`; everything is set up on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check lint types contracts format bench chaos docs lock clean

demo: $(INSTALLED)
	$(BIN)/python demo/make_media.py demo/output/sources
	CROSSCUT_DATA_DIR=demo/output/data $(BIN)/crosscut render demo/request.json --to demo/output/videos

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: lint types contracts

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

contracts: $(INSTALLED)
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(PIP) install --require-hashes -r requirements-bench.lock
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.machines

chaos: $(INSTALLED)
	CROSSCUT_TEST_SERVICES=$${CROSSCUT_TEST_SERVICES:-loopback} $(BIN)/python -m pytest -s -o faulthandler_timeout=0 tests/chaos_cluster.py

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--group dev --group bench pyproject.toml -o requirements-bench.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--constraint requirements.lock --extra celery --extra elevenlabs --extra otel --group image pyproject.toml \
		-o deploy/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--constraint requirements.lock --group flower -o deploy/flower.lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "crosscut needs Python 3.11 or newer; say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) demo/output .mypy_cache .ruff_cache .pytest_cache .hypothesis build
