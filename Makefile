# make train   set everything up and train on the built-in task; ARGS="model=lstm seed=1" passes overrides
# make test    set everything up and run the tests
# make check   format, lint and types
# make mutants break the handoff on purpose, in every way we know, and see that a test fails
# make torture slow tests, then kill runs at random moments and feed in damaged files; not in CI, takes half an hour
# make pictures draw the README's pictures again, from today's code
# make install make the environment only
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install train test mutants torture pictures check format clean

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

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis src/*.egg-info
