# `make help` lists the targets. Everything runs in .venv, which `setup` makes.
PYTHON ?= python3
BIN := .venv/bin
# two processes of one thread each are faster on two cores than one process of two threads, which spin
RUN := OMP_NUM_THREADS=1

.PHONY: help setup demo test lint format bench results requirements clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/installed  ## make .venv with the pinned packages and this project (editable)

.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --disable-pip-version-check --no-build-isolation -e .
	mkdir -p .venv/source && ln -sfn ../.. .venv/source/encore  # mypy does not follow an editable installation
	touch $@

demo: setup  ## write a corpus, train, validate, refine files, report: about 5 minutes on 2 cores
	benchmarks/demo.sh

test: setup  ## all tests and doctests
	$(RUN) $(BIN)/python -m pytest -q -n 2

lint: setup  ## ruff, ruff-format, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## speed of refinement and measures, quality against calls, as ratios: about 8 minutes
	benchmarks/bench.sh

results: setup  ## the tables of docs/results.md, from training on: about 9 hours on 2 cores
	benchmarks/results.sh
	benchmarks/music.sh

requirements:  ## pin requirements.txt anew from pyproject.toml (needs uv)
	echo asteroid==0.7.0 | uv pip compile pyproject.toml - --universal --python-version 3.11 --extra synthesis --extra pretrained --extra onnx \
	  --extra metrics --extra dev --no-header --no-annotate --no-emit-index-url --output-file requirements.txt

clean:  ## remove .venv and caches; datasets and outputs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
