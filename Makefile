# Everything runs in .venv, which `make setup` makes: no step needs anything installed by hand but Python 3.11 to 3.13.
PYTHON ?= python3
# The set of versions that was tested. `make setup CONSTRAINTS=` takes the newest that setup.cfg allows.
CONSTRAINTS ?= -c constraints.txt
BIN := .venv/bin
QUICK := not faults and not cluster and not slow

.PHONY: help setup quickstart test test-fast test-faults test-cluster test-slow bench bench-full lint audit clean

help:
	@echo "make setup       the environment, in .venv"
	@echo "make quickstart  set-up, demo data, a sweep on CPU, its best model and a submission"
	@echo "make test        set-up and all tests but the slow ones"
	@echo "make test-fast   set-up and the tests that start no Ray"
	@echo "make test-faults set-up and the slow tests of faults, about 35 minutes"
	@echo "make test-cluster set-up and the slow tests of clusters, under 20 minutes; needs root and namespaces"
	@echo "make test-slow   set-up and other slow tests, variants of quicker ones, about 15 minutes"
	@echo "make bench       every benchmark in short, under 20 minutes (DATA=folder of the data set)"
	@echo "make bench-full  every benchmark"
	@echo "make lint        ruff and mypy"
	@echo "make audit       known faults of the dependencies (pip-audit; needs the network)"
	@echo "make clean       remove .venv, caches, the demo data and the quickstart's run"

setup: .venv/ready

.venv/ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is `$(PYTHON) --version`: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[timm,dev]'
	@touch $@

quickstart: setup
	@test -d data/demo || $(BIN)/fashion-sweep data demo data/demo
	$(BIN)/fashion-sweep run sweeps/quickstart.yaml
	$(BIN)/fashion-sweep best quickstart --predict

# A sweep takes the whole machine: those tests run one after another.
test: setup
	$(BIN)/python -m pytest -n 2 -m "not ray and $(QUICK)"
	$(BIN)/python -m pytest -m "ray and $(QUICK)"

test-fast: setup
	$(BIN)/python -m pytest -n 2 -m "not ray and $(QUICK)"

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-faults: setup
	$(BIN)/python -m pytest -m faults

# Test hosts need root, an sshd, rsync and ip. In a container they are installed; on a machine that runs services they are
# not, since an sshd would then start: the tests are skipped there and say what is missing.
test-cluster: setup
	@for name in sshd rsync ip; do PATH="$$PATH:/usr/sbin:/sbin" command -v $$name > /dev/null || missing=1; done; \
	if [ -n "$$missing" ] && [ "`id -u`" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get > /dev/null; then \
	  apt-get -qq update && apt-get -qq install --yes --no-install-recommends openssh-server rsync iproute2 || true; fi
	$(BIN)/python -m pytest -m cluster

DATA ?= data/FashionDataset

bench: setup
	$(BIN)/python -m benchmarks --data $(DATA) --json build/bench.json

bench-full: setup
	$(BIN)/python -m benchmarks --full --data $(DATA) --json build/bench-full.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In an environment of its own: the tool's dependencies are not the package's. Not part of .ci/run, which has no network
# beyond the package index.
audit: setup
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info data/demo runs/quickstart
