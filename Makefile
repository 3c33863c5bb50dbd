# Two commands do everything on a machine with Python 3.11: `make demo` and `make test`. Each sets up what it needs first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
UV ?= uv

.PHONY: docs demo test test-fast lint lock clean
.DELETE_ON_ERROR:

demo: .venv/ready-runtime  ## three nights against two simulated CRMs; ARGS="--keep" leaves everything up
	$(BIN)/plumbline demo $(ARGS)

test: .venv/ready-dev  ## all tests, the fast ones first, a module to a processor; of the slow ones each takes the next
	$(BIN)/pytest -n auto --dist loadscope
	$(BIN)/pytest -m slow -n auto --dist load

test-fast: .venv/ready-dev
	$(BIN)/pytest -n auto --dist loadscope

lint: .venv/ready-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready-dev  ## write the generated pages again
	$(BIN)/python -m flows.reference

lock:  ## pin the dependency tree again, with hashes (needs uv)
	cd requirements && for set in runtime dev; do $(UV) pip compile -q --upgrade --generate-hashes --python-version 3.11 --no-strip-extras \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $$set.in -o $$set.txt; done

clean:
	rm -rf .venv demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The lock file is the whole tree, so nothing is left to resolve: --no-deps. dev.txt holds runtime.txt.
.venv/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Plumbline needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv .venv || { echo "On Debian: apt-get install python3-venv"; exit 1; }
	touch $@

.venv/ready-%: requirements/%.txt pyproject.toml | .venv/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/$*.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
