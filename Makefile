# Everything runs in .venv, which `make setup` makes: no step needs anything installed by hand but Python 3.11 to 3.13.
PYTHON ?= python3
# The set of versions that was tested. `make setup CONSTRAINTS=` takes the newest that setup.cfg allows.
CONSTRAINTS ?= -c constraints.txt
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Five tests at a time, on two cores too: many wait for something. Those of one group (xdist_group) share what is slow to
# make, and run one after another.
PARALLEL := -n 5 --dist loadgroup
# Gives up soon where no package server answers.
APT := apt-get -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=1
QUICK := not faults and not cluster and not slow
REST := not further and $(QUICK)

.PHONY: help setup quickstart chromium test test-fast test-ray test-both test-faults test-cluster test-slow coverage \
  bench bench-full pictures lint lint-js audit clean

# Times are those of two busy cores, after set-up.
help:
	@echo "make setup         make the environment in .venv: minutes, most of them downloads"
	@echo "make quickstart    draw demo data, sweep on the CPU, predict with the best model: 2 minutes"
	@echo "make test          all tests but those below: 9 minutes"
	@echo "make test-fast     those of them that start no Ray: less than 9 minutes"
	@echo "make test-ray      further tests on a real Ray: 12 minutes"
	@echo "make test-both     make test and make test-ray in one call: under 20 minutes"
	@echo "make test-faults   slow tests of faults: 20 to 45 minutes"
	@echo "make test-cluster  slow tests of clusters, needs root and namespaces: under 20 minutes"
	@echo "make test-slow     other slow tests, variants of quicker ones: about 30 minutes"
	@echo "make coverage      make test, and how much of the package it runs; fails below setup.cfg's floor: 20 minutes"
	@echo "make bench         every benchmark in short (DATA=folder of the data set): under 20 minutes"
	@echo "make bench-full    every benchmark: hours"
	@echo "make lint          ruff and mypy: 1 minute"
	@echo "make lint-js       the page's scripts, by their types; needs Node.js and npm's registry: seconds"
	@echo "make pictures      the pictures and transcripts of the documentation, of sweeps on demo data: 10 minutes"
	@echo "make audit         known vulnerabilities of the dependencies, needs the network: 1 minute"
	@echo "make clean         remove .venv, caches, the demo data and its runs: seconds"

setup: .venv/ready

.venv/ready: setup.cfg setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is `$(PYTHON) --version`: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[timm,dev]'
	@touch $@

quickstart: setup
	@test -d data/demo || $(BIN)/fashion-sweep data demo data/demo
	$(BIN)/fashion-sweep run sweeps/quickstart.yaml
	$(BIN)/fashion-sweep best quickstart --predict

# The page's tests drive a Chromium, which is installed where that is a matter of course: as root, in a container.
# Elsewhere they are skipped and say what is missing.
chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && found=1; done; \
	if [ -z "$$found" ] && [ "`id -u`" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get > /dev/null; then \
	  $(APT) update && $(APT) install --yes --no-install-recommends chromium || true; fi

test: setup chromium
	$(PYTEST) $(PARALLEL) -m "$(REST)"

test-fast: setup
	$(PYTEST) $(PARALLEL) -m "not ray and $(REST)"

test-ray: setup
	$(PYTEST) $(PARALLEL) -m "further and $(QUICK)"

# In one call, the quick tests fill the cores while a Ray starts or ends.
test-both: setup chromium
	$(PYTEST) $(PARALLEL) -m "$(QUICK)"

# These watch the clock, or need the machine to themselves: one after another.
test-faults: setup
	$(PYTEST) -m faults

test-slow: setup
	$(PYTEST) -m slow

# Test hosts need root, an sshd, rsync and ip. In a container they are installed. On a machine that runs services they are
# not, since an sshd would then start: the tests are skipped there and say what is missing.
test-cluster: setup
	@for name in sshd rsync ip; do PATH="$$PATH:/usr/sbin:/sbin" command -v $$name > /dev/null || missing=1; done; \
	if [ -n "$$missing" ] && [ "`id -u`" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get > /dev/null; then \
	  $(APT) update && $(APT) install --yes --no-install-recommends openssh-server rsync iproute2 || true; fi
	$(PYTEST) -m cluster

# Also of what the tests' child processes run, wherever their working directory is.
coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/data
coverage: PYTEST := $(BIN)/coverage run -m pytest
coverage: setup
	rm -rf build/coverage
	mkdir -p build/coverage
	$(PYTEST) $(PARALLEL) -m "$(REST)"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

DATA ?= data/FashionDataset

bench: setup
	$(BIN)/python -m benchmarks --data $(DATA) --json build/bench.json

bench-full: setup
	$(BIN)/python -m benchmarks --full --data $(DATA) --json build/bench-full.json

# Pictures and transcripts of the documentation, of the quickstart's sweep with more trials than make quickstart has, and
# of a second sweep beside it. Runs that are there already are not repeated. Needs Chromium.
pictures: quickstart
	$(BIN)/fashion-sweep run sweeps/quickstart.yaml --trials 24
	$(BIN)/fashion-sweep run sweeps/quickstart.yaml --name quickstart-adamw --set train.optimizer=adamw \
	  --set 'train.lr={loguniform: [0.0005, 0.01]}'
	$(BIN)/python -m benchmarks.pictures runs/quickstart docs/pictures
	$(BIN)/python -m benchmarks.transcripts docs/terminal.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# TypeScript reads the types that the scripts' comments give; nothing is translated. npx keeps it in a cache of its own.
TYPESCRIPT ?= typescript@7.0.2

lint-js:
	@if command -v npx > /dev/null; then npx --yes --package $(TYPESCRIPT) -- tsc --project tests/page/tsconfig.json; \
	else echo "lint-js: skipped, since there is no npx on this machine: install Node.js"; fi

# In an environment of its own: the tool's dependencies are not the package's. Not part of .ci/run, which reaches nothing
# but the package index.
audit: setup
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info data/demo runs/quickstart runs/quickstart-adamw
