# Everything sets itself up: each target alone, in any order, again and again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-long dag reference lint

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

test: .venv/installed .venv-megatron/installed  ## all tests: ours, then those against other people's code
	$(BIN)/python -m pytest --ignore tests/contract -m 'not long' --durations 15 \
	    -n 2 --dist loadfile --no-loadscope-reorder
	NEMOFLOW_PYTHON=$(BIN)/python PYTHONPATH=workflow \
	    .venv-megatron/bin/python -m pytest tests/contract

test-long: .venv/installed  ## the tests that train for minutes: tiny runs, seeds, many kills
	$(BIN)/python -m pytest -m long

dag: .venv/installed  ## write the rule graph of the whole recipe into the README
	$(BIN)/python -m nemoflow.readme

reference: .venv/installed  ## write config/schema.json and config/README.md from the models
	$(BIN)/python -m nemoflow.config.reference

lint: .venv/installed  ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile rules
