# Two commands for a fresh machine: `make demo` and `make test`. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Pins a tested set; pyproject.toml stays open. Needs Python 3.11 or newer.
PIP_INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt
comma := ,
EXTRAS := demo,office,stock,faiss,llm,lora,trulens,trulens-dashboard,onnx,openvino,openai,ray

# Tests run in groups, so many at a time, each on one thread and with up to 4 GiB. The groups are of like length.
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider
# What a developer runs after each change: no trained model, no second process.
fast-data := tests/core tests/dataset tests/calls
fast-search := tests/search tests/retrievers tests/test_house.py tests/test_public_api.py tests/test_release.py
UNIT := not system and not e2e and not data
group-finetune := tests/finetune tests/mining
group-faults := tests/faults tests/pipeline
group-generation := tests/generation tests/calls tests/core tests/integrations
group-cli := tests/cli tests/e2e tests/evaluation
group-index := tests/index tests/embeddings tests/export
GROUPS := finetune faults generation cli index
group-rest = tests $(addprefix --ignore=,$(foreach group,$(GROUPS),$(group-$(group))))

.PHONY: help demo test test-fast test-all test-system test-lowest test-latest coverage mutants lint pyright format api docs wheel smoke pins audit clean
.DELETE_ON_ERROR:

help:
	@echo "make demo         fine-tune on Python's standard library and show what changed (runs/demo/report.html)"
	@echo "make test         all tests that need no second service, in groups side by side (JOBS=2)"
	@echo "make test-fast    the tests of a minute, to run after each change"
	@echo "make test-all     make test, and Ray, PostgreSQL, browser, fuzz, notebooks, kills and several processes"
	@echo "make test-lowest  unit tests with the lowest versions that pyproject.toml admits"
	@echo "make test-latest  unit tests with the newest versions, without the pins"
	@echo "make coverage     make test in one process, with the lines and branches that no test runs"
	@echo "make mutants      change each operator of what decides figures, and see whether a fast test notices"
	@echo "make lint         ruff, spelling, unused code, the import contract and mypy"
	@echo "make pyright      a second reader of types, beside mypy (two minutes)"
	@echo "make format       ruff format, with safe fixes"
	@echo "make api          write the public interface anew (tests/public_api.txt)"
	@echo "make docs         build the documentation into site/"
	@echo "make wheel        build dist/ and check what is inside"
	@echo "make smoke        install that wheel into an environment of its own and use it (WITH=lora,faiss: with these extras)"
	@echo "make pins         write constraints.txt anew (UPGRADE=--upgrade: with the newest versions)"
	@echo "make audit        look for known weaknesses in the pinned versions"
	@echo "make clean        remove the environments and what the tools left behind"

$(VENV)/pip.stamp:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "$(PYTHON) is not Python 3.11 or newer, which the pinned versions need; give another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { echo "$(PYTHON) comes without venv or ensurepip; install them (on Debian: apt install python3-venv)."; exit 2; }
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
	@$(PIP_INSTALL) -e ".[$(EXTRAS)]" --group dev
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/embft demo

test: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory --keep-going -j$(JOBS) $(addprefix test-group-,$(GROUPS) rest)

test-all: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory --keep-going -j$(JOBS) test-system $(addprefix test-group-,$(GROUPS) rest)

test-group-%: $(VENV)/dev.stamp
	$(PYTEST) -m "not system" $(group-$*)

# One after the other: two Ray clusters would share one machine.
test-system: $(VENV)/dev.stamp
	$(PYTEST) -m system tests

test-fast: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory --keep-going -j2 test-fast-data test-fast-search

test-fast-%: $(VENV)/dev.stamp
	$(PYTEST) -m "$(UNIT)" $(fast-$*)

coverage: $(VENV)/dev.stamp
	$(PYTEST) -m "not system" --cov --cov-report=term:skip-covered --cov-report=html:.coverage-html tests

mutants: $(VENV)/dev.stamp
	$(PIP_INSTALL) --group mutants
	$(BIN)/python benchmarks/mutants.py

# Environments of their own: their versions are not those of constraints.txt. Copies, since nltk refuses files that are
# linked from uv's cache.
export UV_LINK_MODE := copy
test-lowest: .venv-lowest/.stamp
	.venv-lowest/bin/python -m pytest -p no:cacheprovider -m "$(UNIT)" $(fast-data) $(fast-search) tests/evaluation tests/embeddings \
	  tests/cli/test_data_commands.py tests/cli/test_convert.py

.venv-lowest/.stamp: pyproject.toml $(VENV)/dev.stamp
	$(BIN)/uv venv --quiet --clear --python 3.10 .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e ".[demo,faiss,llm,lora,openai]" --group unit
	@touch $@

test-latest: $(VENV)/dev.stamp
	$(BIN)/uv venv --quiet --clear .venv-latest
	$(BIN)/uv pip install --quiet --python .venv-latest/bin/python --upgrade -e ".[demo,faiss,llm,lora,openai]" --group unit
	$(BIN)/uv pip list --python .venv-latest/bin/python
	.venv-latest/bin/python -m pytest -p no:cacheprovider -m "$(UNIT)" $(fast-data) $(fast-search) tests/evaluation tests/embeddings

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	@! $(BIN)/vulture | grep "^llama_index_embft/"
	$(BIN)/lint-imports
	$(BIN)/mypy

pyright: $(VENV)/dev.stamp
	$(PIP_INSTALL) --group pyright
	$(BIN)/basedpyright

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

api:
	$(PYTHON) tests/public_api.py --write

docs: $(VENV)/dev.stamp
	$(PIP_INSTALL) --group docs
	$(BIN)/mkdocs build --strict

wheel: | $(VENV)/pip.stamp
	$(PIP_INSTALL) --group release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/artefacts/contents.py dist

smoke: wheel
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet -c constraints.txt "$$(echo dist/*.whl)$(if $(WITH),[$(WITH)])"
	.venv-wheel/bin/python tests/artefacts/smoke.py $(subst $(comma), ,$(WITH))

# Keeps the versions that still fit; `make pins UPGRADE=--upgrade` takes the newest. CUDA's libraries are left out: which
# of them are needed is torch's own choice.
pins: $(VENV)/dev.stamp
	cp constraints.txt constraints.new
	$(BIN)/uv pip compile --quiet $(UPGRADE) --no-annotate --no-header --output-file constraints.new \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) --group dev --group docs --group release --group mutants --group pyright pyproject.toml
	{ echo "# A tested set of versions (Python 3.11, Linux x86-64, CPU), written by \`make pins\`; the Makefile and CI install with it."; \
	  grep -v -E '^(nvidia|cuda|triton)' constraints.new; } > constraints.txt
	rm constraints.new

audit: $(VENV)/dev.stamp
	$(PIP_INSTALL) --group release
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) .venv-wheel .venv-lowest .venv-latest site dist .mypy_cache .ruff_cache .pytest_cache .coverage .coverage-html mutants .hypothesis .import_linter_cache
