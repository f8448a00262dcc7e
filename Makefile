# One target a job; a bare `make` lists them. Everything runs in .venv, which `install` makes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
MODELS := models
PORT   ?= 8000
USER_ID ?= 196

.DEFAULT_GOAL := help
.PHONY: help install demo serve loadtest bench bench-peers chaos soak-swap test lint types layers format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(VENV)/.installed ## make .venv with everything pinned in constraints.txt
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,dev]' -c constraints.txt
	@touch $@

$(MODELS)/movielens/1/manifest.json: | install
	$(BIN)/multirank run examples/movielens.yaml --models $(MODELS)

demo: install ## train on MovieLens, export, publish, serve, and print a ranked list
	$(BIN)/multirank run examples/movielens.yaml --models $(MODELS)
	$(BIN)/multirank compare examples/movielens.yaml examples/movielens-shared-bottom.yaml --seeds 1,2,3
	$(BIN)/multirank demo --user $(USER_ID) --context hour=21 --model movielens --models $(MODELS)

serve: $(MODELS)/movielens/1/manifest.json ## serve the demo's model on PORT (default 8000)
	$(BIN)/multirank serve --models $(MODELS) --port $(PORT)

loadtest: $(MODELS)/movielens/1/manifest.json ## 30 s of locust against a served demo: percentiles and failures
	$(BIN)/python -m loadtest.run --models $(MODELS)

bench: install ## feed200: bare onnxruntime and multirank on one core, in turn; tables, JSON, a chart
	$(BIN)/python -m loadtest.bench

chaos: install ## ten failures of Redis under load; one JSON line a case, exit code 1 on a broken promise
	$(BIN)/python -m loadtest.chaos

bench-peers: install ## feed200 beside FastAPI, BentoML, LitServe, mosec, Ray Serve and Triton; table into the README
	$(BIN)/python -m loadtest.peers

soak-swap: install ## 100 swaps of two versions under load, 2 workers: failed, mixed, p99, memory; one JSON line
	$(BIN)/python -m loadtest.soak_swap

test: install ## the whole test suite, against a real Redis that it starts itself
	$(BIN)/python -m pytest

lint: install ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict
	$(BIN)/mypy

layers: install ## import-linter: who may import whom
	$(BIN)/lint-imports

format: install ## rewrite the code as `lint` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the targets made, the environment included
	rm -rf $(VENV) $(MODELS) runs .data .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
