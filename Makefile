# Everything sets itself up: each target alone, in any order, again and again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo pictures test test-here test-beside test-cluster test-contract test-long test-gpu dag reference lint submit

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/installed  ## install the local environment into .venv

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint requirements.lock setuptools
	$(BIN)/pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements.lock)
	$(BIN)/pip install --quiet --constraint requirements.lock --no-build-isolation \
	    --editable '.[local,dev]'
	touch $@

.venv-megatron/installed: envs/megatron.txt envs/megatron.sh
	PYTHON=$(PYTHON) envs/megatron.sh .venv-megatron
	touch $@

demo: .venv/installed  ## build super3 at laptop size, from text to scores and a report page
	@$(BIN)/python -m nemoflow.demo super3-tiny

pictures: .venv/installed  ## take the pictures of the demo's report that the README shows
	@$(BIN)/python -m nemoflow.screenshots results/super3-tiny/report.html pictures

# The tests on Slurm mostly wait, so they and then those against other people's code run beside the
# others, with the same finished micro run; what they print is held back until they end.
test: .venv/installed .venv-megatron/installed  ## all tests: ours, and those against other people's code
	@export TESTS_SHARED=$$(mktemp -d); trap 'rm -rf "$$TESTS_SHARED"' EXIT; \
	    $(MAKE) --no-print-directory --jobs 2 --keep-going test-here test-beside

test-here: .venv/installed  ## those of them that need neither Slurm nor the cluster's software
	$(BIN)/python -m pytest --ignore tests/contract --ignore tests/cluster -m 'not long' \
	    --durations 15 -n 2 --dist loadfile --no-loadscope-reorder

test-beside:  ## test-cluster and test-contract, their output held back until the end
	@code=0; told=$$($(MAKE) --no-print-directory --jobs 1 --keep-going test-cluster test-contract \
	    2>&1) || code=$$?; printf '%s\n' "$$told"; exit $$code

test-cluster: .venv/installed  ## the tests on a Slurm of this machine, installed with apt where it can be
	$(BIN)/python -m pytest tests/cluster -m 'not long' --durations 5

test-contract: .venv/installed .venv-megatron/installed  ## those against megatron-core and Megatron-Bridge
	NEMOFLOW_PYTHON=$(BIN)/python PYTHONPATH=workflow \
	    .venv-megatron/bin/python -m pytest tests/contract -m 'not long'

test-long: .venv/installed .venv-megatron/installed  ## the tests that take minutes: tiny runs, seeds, many kills
	$(BIN)/python -m pytest -m long
	NEMOFLOW_PYTHON=$(BIN)/python PYTHONPATH=workflow \
	    .venv-megatron/bin/python -m pytest tests/contract -m long

test-gpu: .venv/installed .venv-megatron/installed  ## the tests that need one GPU; skipped with the reason elsewhere
	$(BIN)/python -m pytest tests/gpu/test_gpu_local.py
	PYTHONPATH=workflow .venv-megatron/bin/python -m pytest tests/gpu/test_gpu_hybrid.py

PROFILE ?= profiles/b200

submit: .venv/installed  ## let a Slurm job of its own build TARGET by PROFILE, with SET=KEY=VALUE,…
	@$(BIN)/python -m nemoflow submit $(or $(TARGET),$(error say what: make submit TARGET=results/super3/eval.json)) \
	    --profile $(PROFILE) $(if $(SET),--set '$(SET)')

dag: .venv/installed  ## write the rule graph of the whole recipe into the README
	$(BIN)/python -m nemoflow.readme

reference: .venv/installed  ## write config/schema.json and config/README.md from the models
	$(BIN)/python -m nemoflow.config.reference

lint: .venv/installed  ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile rules
