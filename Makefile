# Every command sets up what it needs first; see README.md.
SHELL := /bin/bash
BIN := .venv/bin

.PHONY: help setup demo test bench lint format up down chaos soak

help:
	@echo "make demo   the whole nightly job on a synthetic shop, embedded registry"
	@echo "make test   every test, real Redis included"
	@echo "make bench  benchmarks beside their peers: a table, and JSON under build/bench"
	@echo "make up     Redis, Celery workers, reconciler, beat, server and Flower on this machine; make down stops them"
	@echo "make chaos  300 faults against real Redis and workers; make soak: 100 nights of 3 models"
	@echo "make lint   ruff, mypy --strict, import-linter"

setup:
	@.ci/setup

demo: setup
	@$(BIN)/recsys-kd demo build/demo

test: setup
	@$(BIN)/python -m pytest -n 2 --dist loadfile

bench: setup
	@$(BIN)/python -m tests.benchmarks

up: setup
	@mkdir -p build && : >build/up.log
	@nohup $(BIN)/recsys-kd jobs up build/up >build/up.log 2>&1 & \
	while kill -0 $$! 2>/dev/null && ! grep -qs "^up: " build/up.log; do sleep 0.1; done; \
	cat build/up.log; kill -0 $$! 2>/dev/null || wait $$!

down:
	@$(BIN)/recsys-kd jobs down build/up

chaos: setup
	@$(BIN)/python -m tests.chaos

soak: setup
	@$(BIN)/python -m tests.chaos.soak

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
