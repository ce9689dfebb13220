# Two commands for a fresh machine with python3 (3.11 to 3.13, with venv) and make:
#   make demo    invents a scene, scores it, shows what was found
#   make test    runs the tests
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test lint docs all

demo: $(INSTALLED)
	$(BIN)/uniadrs-scale demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal --durations 20

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(INSTALLED): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)
