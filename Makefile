# dhctl's verbs. Needed: Linux, make, bash, Python >= 3.11 and a way to the package registries; the rest is fetched.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ROOMS := infra stacks ray_jobs cli

TESTBED := PYTHONPATH=tests $(BIN)/python -m testbeds.openstack
K8S_TESTBED := PYTHONPATH=tests $(BIN)/python -m testbeds.kubernetes

.PHONY: help bootstrap demo test test-thorough test-slow unit lint format bench constraints clean testbed-install testbed-up testbed-down \
  k8s-testbed-install k8s-testbed-up k8s-testbed-down

help: ## Lists the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' Makefile

bootstrap: ## Makes .venv and fetches the Pulumi engine; quick when both are there
	@scripts/bootstrap.sh

demo: bootstrap ## One training run on this machine: up, train, down, receipt
	$(BIN)/dhctl run examples/prostate-local.yaml

test: bootstrap ## What every change should pass: unit, contract, jobs without a cluster, whole runs here and on the testbeds
	@scripts/test.sh

test-thorough: bootstrap ## The rest of what CI runs: whole runs that are killed, lost, refused, past their lease, one by one
	@scripts/test.sh thorough

test-slow: bootstrap ## What CI leaves out for its time: elastic training, the CT example, rarer losses, a hundred workers
	$(PYTEST) tests/e2e tests/cloud tests/pods -m slow --durations=10

unit: bootstrap ## Only the unit tests: seconds
	$(PYTEST) tests/unit -m "not e2e"

lint: bootstrap ## Format, lint rules, types
	@mkdir -p .typing/dhctl
	for room in $(ROOMS); do ln -sfn ../../$$room .typing/dhctl/$$room; done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: bootstrap ## Rewrites the files as `make lint` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: bootstrap ## Measures, and writes the numbers down
	$(BIN)/python tests/bench/measure.py
	$(BIN)/python tests/bench/on_openstack.py
	$(BIN)/python tests/bench/on_kubernetes.py
	$(BIN)/python tests/bench/kubernetes_scale.py

testbed-install: bootstrap ## Installs the Debian packages of the OpenStack testbed (root, once: 4 minutes)
	$(TESTBED) install

testbed-up: bootstrap ## Starts the OpenStack testbed and leaves it running (root)
	$(TESTBED) up

testbed-down: bootstrap ## Stops it
	$(TESTBED) down

browser-install: bootstrap ## Installs the browser that looks at reports: Debian's chromium (root, once)
	PYTHONPATH=tests $(BIN)/python -m testbeds.browser install

k8s-testbed-install: bootstrap ## Packages, programs and image of the Kubernetes testbed (root, once: 6 minutes)
	$(K8S_TESTBED) install

k8s-testbed-up: bootstrap ## Starts the Kubernetes testbed and leaves it running (root)
	$(K8S_TESTBED) up

k8s-testbed-down: bootstrap ## Stops it
	$(K8S_TESTBED) down

constraints: ## Resolves constraints.txt anew (UPGRADE=1: to the newest versions)
	@uv=$$(command -v uv || echo .tools/bin/uv)
	$$uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make constraints" \
	  $(if $(UPGRADE),--upgrade) --quiet --output-file constraints.txt

clean: ## Removes what the other verbs made in this folder (not dhctl's home)
	rm -rf .venv .tools .typing .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
