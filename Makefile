# Every command sets up what it needs first; see README.md.
SHELL := /bin/bash
BIN := .venv/bin

.PHONY: help setup demo test bench lint format

help:
	@echo "make demo   the whole nightly job on a synthetic shop, embedded registry"
	@echo "make test   every test, real Redis included"
	@echo "make bench  benchmarks beside their peers: a table, and JSON under build/bench"
	@echo "make lint   ruff, mypy --strict, import-linter"

setup:
	@.ci/setup

demo: setup
	@$(BIN)/recsys-kd demo build/demo

test: setup
	@$(BIN)/python -m pytest

bench: setup
	@$(BIN)/python -m tests.benchmarks

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
