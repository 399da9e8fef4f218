# make lab        sets up .venv and opens JupyterLab on the tour (ARGS="--no-browser" on a server)
# make test       sets up everything and runs every test that is not slow, and every notebook
# make test-slow  the long matrices: the tests that do not fit ten minutes
# make test-processors  make test as other processors would compute it, in an hour (ARGS=aten-avx2)
# make notebooks  re-runs every notebook and stores its outputs and pictures
# make picture    takes the README's picture of the tour
# make lint       ruff and pyright
# Without make: README.md, "Without make".

PYTHON ?= python3
# An existing .venv keeps its Python, unless you name another.
SETUP = $(PYTHON) bootstrap.py $(if $(filter-out file,$(origin PYTHON)),--this-python)
BIN = .venv/bin
ARGS =

.PHONY: lab test test-slow test-processors notebooks picture lint

lab:
	@$(SETUP) lab
	@$(BIN)/oss-lab lab $(ARGS)

# Without Chromium the second run says what it skipped.
test:
	@$(SETUP) lab test
	$(BIN)/pytest --nbval --durations=5 $(ARGS)
	$(BIN)/pytest -m "browser and not slow" --dist=load tests/browser $(ARGS)

# pytest's status 5 means that no test is marked slow here, which is no failure.
test-slow:
	@$(SETUP) lab test
	$(BIN)/pytest -m slow --durations=5 tests $(ARGS) || [ $$? -eq 5 ]

test-processors:
	@$(SETUP) lab test
	$(BIN)/python tests/processors.py $(ARGS)

notebooks:
	@$(SETUP) lab test
	$(BIN)/python -m oss_lab.plots.notebooks notebooks/*.ipynb

picture:
	@$(SETUP) lab test
	$(BIN)/pytest -q -n 0 -m browser --import-mode=prepend tests/browser/make_picture.py

lint:
	@$(SETUP) lab test lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
