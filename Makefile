# `make demo` and `make test` need nothing but Python 3.11 or newer with venv, and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-attack test-snippets bench lint format setup setup-dev system-packages clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

# Stamps: a second run installs nothing; a changed setup.cfg installs again; an interrupted install is repeated.
$(VENV)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which with: make PYTHON=python3.11 ..."; exit 1; }
	@echo "Setting up $(VENV) (torch with its libraries is several GB; the first time takes minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@start=$$(date +%s); $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . && \
	  echo "Set-up took $$(( $$(date +%s) - start )) s."
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@start=$$(date +%s); $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' && \
	  echo "Set-up of the test tools took $$(( $$(date +%s) - start )) s."
	@touch $@

setup: $(VENV)/installed  ## create .venv and install the project

setup-dev: $(VENV)/installed-dev  ## the same with the test tools

# Some tests use programs of the system; without them those tests skip and say which one is missing.
system-packages:
	@missing=""; for program in ffmpeg chromium; do command -v $$program >/dev/null 2>&1 || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing Debian's$$missing for the tests that use them ..."; \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing) >/dev/null 2>&1 \
	    || echo "Not installed:$$missing; the tests that need them will skip."; \
	fi

demo: setup  ## fine-tune the small AST that ships on the drum clips that ship, then use it
	@start=$$(date +%s); \
	$(BIN)/ast-finetune finetune/recipes/drums.yaml --license cc-by-sa-4.0 --overwrite_output_dir && \
	$(BIN)/python -m finetune.drums_demo runs/drums --started_at $$start

test: setup-dev system-packages  ## the default tests, several at a time with a thread each
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not long and not attack" -n logical --maxprocesses 4 --dist loadfile

test-all: setup-dev system-packages  ## every test, also the long ones, one at a time with all threads
	@$(BIN)/python -m pytest -q

test-attack: setup-dev system-packages  ## damaged files, tampered checkpoints, signals, two runs at once, a busy page (under 15 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m attack -n 2 --dist loadfile tests/attack

# What the snippets need, apart from the project's own packages: ONNX Runtime for Node.js and for C++.
SNIPPETS ?= $(VENV)/snippets
test-snippets: setup-dev  ## the C++, JavaScript and Python of docs/deploy.md
	@sh tests/snippet_tools.sh $(SNIPPETS)
	@SNIPPETS=$(SNIPPETS) $(BIN)/python -m pytest -q tests/modeling_ast/export/test_snippets.py

# A rival, apart from the project's own packages and without the dependencies that are there already.
$(VENV)/bioamla/installed: | setup-dev
	@$(BIN)/python -m pip install -q --no-deps --target $(VENV)/bioamla bioamla==0.2.14 python-dotenv==1.2.1 librosa==0.11.0 lazy_loader==0.6
	@touch $@

bench: setup-dev $(VENV)/bioamla/installed  ## measure against stock Transformers, side by side (about twenty minutes on two cores)
	@$(BIN)/python -m benchmarks.bench --bioamla $(VENV)/bioamla $(if $(DIGITS),--digits $(DIGITS))

lint: setup-dev  ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup-dev  ## rewrite to style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what the targets made (not your runs)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
