# make train     set everything up and train on the built-in task; ARGS="model=lstm seed=1" passes overrides
# make test      set everything up and run the tests
# make docs-test build the website, run the README, the recipes and the notebook: ten minutes
# make check     format, lint and types
# make mutants   break the handoff on purpose, in every way we know, and see that a test fails
# make docs      build the website into build/site; a dead link or a page without a place in the menu is an error
# make dist      build wheel and source distribution into dist/, and train with the wheel in a fresh environment
# make pictures draw the README's pictures again, from today's code
# make torture   slow tests, then kill runs at random moments and feed in damaged files; not in CI, takes half an hour
# make install   make the environment only
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: install train test docs-test mutants torture pictures check format docs dist clean

install: .venv/installed

# One environment for every command. The stamp is written last, so a broken install is tried again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: install
	$(BIN)/python scripts/train.py $(ARGS)

test: install
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal $(ARGS)

docs-test: install
	$(BIN)/python -m pytest -m docs $(ARGS)

mutants: install
	$(BIN)/python tests/mutants.py

torture: install
	$(BIN)/python -m pytest -m 'slow or combination'
	$(BIN)/python tests/torture.py $(ARGS)

pictures: install
	$(MAKE) --file=docs/pictures.mk

check: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: install
	rm -rf dist build/wheel
	$(BIN)/python -m build
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/seq2seq-train data=reverse debug=fast

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis src/*.egg-info
