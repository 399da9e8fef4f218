# make lab        sets up .venv and opens JupyterLab on the tour (ARGS="--no-browser" on a server)
# make test       sets up everything and runs every test that is not slow, and every notebook
# make test-slow  the tests that do not fit 20 minutes
# make notebooks  re-runs every notebook and stores its outputs and pictures
# make picture    takes the README's picture of the tour
# make lint       ruff and pyright
# Without make: README.md, "Without make".

PYTHON ?= python3
# An existing .venv keeps its Python, unless you name another.
SETUP = $(PYTHON) bootstrap.py $(if $(filter-out file,$(origin PYTHON)),--this-python)
BIN = .venv/bin
ARGS =

.PHONY: lab test test-slow notebooks picture lint

lab:
	@$(SETUP) lab
	@$(BIN)/oss-lab lab $(ARGS)

# Three runs, so that each reports on its own; without Chromium the last one says what it skipped.
test:
	@$(SETUP) lab test
	$(BIN)/pytest -m "not slow and not browser" --durations=5 tests $(ARGS)
	$(BIN)/pytest --nbval notebooks $(ARGS)
	$(BIN)/pytest -m "browser and not slow" tests/browser $(ARGS)

# pytest's status 5 means that no test is marked slow here, which is no failure.
test-slow:
	@$(SETUP) lab test
	$(BIN)/pytest -m slow --durations=5 tests $(ARGS) || [ $$? -eq 5 ]

notebooks:
	@$(SETUP) lab test
	$(BIN)/python -m oss_lab.plots.notebooks notebooks/*.ipynb

picture:
	@$(SETUP) lab test
	$(BIN)/pytest -q --import-mode=prepend tests/browser/make_picture.py

lint:
	@$(SETUP) lab test lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
