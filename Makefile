# make lab        sets up .venv and opens JupyterLab on the tour (ARGS="--no-browser" on a server)
# make test       installs the test packages and runs every notebook and every test that is not slow
# make test-slow  runs the slow tests
# make test-processors  runs the fast tests with the code paths of other processors; an hour
#                 (ARGS=aten-avx2 runs one of them)
# make notebooks  re-runs every notebook and stores its outputs and pictures
# make book       builds the course as a web site, whose figures are nano running in the page
# make picture    takes the README's screenshot of the tour
# make lint       runs ruff and pyright
# Without make: see README.md, "What is installed".

PYTHON ?= python3
# An existing .venv keeps its Python, unless you name another.
SETUP = $(PYTHON) bootstrap.py $(if $(filter-out file,$(origin PYTHON)),--this-python)
BIN = .venv/bin
ARGS =

.PHONY: lab test test-slow test-processors notebooks book picture lint

lab:
	@$(SETUP) lab
	@$(BIN)/oss-lab lab $(ARGS)

# Without Chromium, the second pytest run skips its tests and says so.
test:
	@$(SETUP) lab test
	$(BIN)/pytest --nbval --durations=5 $(ARGS)
	$(BIN)/pytest -m "browser and not slow" --dist=load tests/browser $(ARGS)

# pytest exits with status 5 if it finds no slow test; that is not a failure.
test-slow:
	@$(SETUP) lab test
	$(BIN)/pytest -m slow --durations=5 tests $(ARGS) || [ $$? -eq 5 ]

test-processors:
	@$(SETUP) lab test
	$(BIN)/python tests/processors.py $(ARGS)

notebooks:
	@$(SETUP) lab test
	$(BIN)/python -m oss_lab.plots.notebooks notebooks/*.ipynb

book:
	@$(SETUP) lab book
	@$(BIN)/python -m oss_widgets.book $(ARGS)

picture:
	@$(SETUP) lab test
	$(BIN)/pytest -q -n 0 -m browser --import-mode=prepend tests/browser/make_picture.py

lint:
	@$(SETUP) lab test lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
