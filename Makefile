# Two commands for a fresh machine: `make demo` and `make test`. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
# Each half takes about half an hour on one core, and up to 4 GiB. Ray clusters are all in one of them.
FIRST_HALF := tests/cli tests/e2e tests/evaluation tests/finetune tests/integrations tests/scale
BIN := $(VENV)/bin
# Pins a tested set; pyproject.toml stays open. Needs Python 3.11 or newer.
PIP_INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: help demo test test-first test-second lint format docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    fine-tune on Python's standard library and show what changed (runs/demo/report.html)"
	@echo "make test    run all tests, in two halves side by side"
	@echo "make lint    ruff, the import contract and mypy"
	@echo "make format  ruff format, with safe fixes"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove .venv and what the tools left behind"

$(VENV)/pip.stamp:
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/pip.stamp
	@echo "Installing llama-index-embft with the extra 'demo' (the first time this takes a few minutes)"
	@$(PIP_INSTALL) -e ".[demo]"
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/demo.stamp
	@echo "Installing what the tests and checks need"
	@$(PIP_INSTALL) -e ".[demo,stock,faiss,llm,lora,trulens,trulens-dashboard,onnx,openvino,openai,ray]" --group dev
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/embft demo

test: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory --keep-going -j2 test-first test-second

test-first: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -p no:cacheprovider $(FIRST_HALF)

test-second: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -p no:cacheprovider tests $(addprefix --ignore=,$(FIRST_HALF))

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp
	$(PIP_INSTALL) --group docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .coverage .hypothesis .import_linter_cache
