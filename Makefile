# One target a job; a bare `make` lists them. Everything runs in .venv, which `install` makes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
MODELS := models
TEST_PROCESSES ?= 2
PORT   ?= 8000
USER_ID ?= 196

.DEFAULT_GOAL := help
.PHONY: help install demo serve loadtest bench bench-peers bench-features chaos freshness soak-swap reproduce matrix
.PHONY: fusion-proof tune test lint types layers format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(VENV)/.installed ## make .venv with everything pinned in constraints.txt
$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard service/native/*.[ch])
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

freshness: install ## write a feature, then rank, 1,000 times on each of 2 workers: all within 1 s?
	$(BIN)/python -m loadtest.chaos.freshness

bench-features: install ## the feature stage at 200 candidates, beside a bare MGET of the same keys
	$(BIN)/python -m loadtest.features_bench

bench-peers: install ## feed200 beside FastAPI, BentoML, LitServe, mosec, Ray Serve and Triton; table into the README
	$(BIN)/python -m loadtest.peers

soak-swap: install ## 100 swaps of two versions under load, 2 workers: failed, mixed, p99, memory; one JSON line
	$(BIN)/python -m loadtest.soak_swap

fusion-proof: install ## 100,000 formulas against an interpreter, 100,000 strings, cost beside numpy; 20 minutes
	$(BIN)/python -m tests.properties.fusion_cost
	MULTIRANK_EXAMPLES=100000 $(BIN)/python -m pytest tests/properties/test_fusion_reference.py tests/properties/test_fusion_fuzz.py

runs/movielens/bundle/manifest.json: | install
	$(BIN)/multirank run examples/movielens.yaml --models $(MODELS)

tune: runs/movielens/bundle/manifest.json ## the weights of examples/fusions/tune.yaml, searched on MovieLens: docs/fusion-tuning.png
	$(BIN)/multirank fusion tune examples/fusions/tune.yaml --run runs/movielens --maximise "ndcg@10(like)" \
	  --keep "auc(watch)>=99%" --picture docs/fusion-tuning.png

reproduce: install ## the papers' experiments: Census-Income, correlated tasks, Hillstrom; an hour, tables in docs/reproduce
	$(BIN)/python -m model_export.reproduce

matrix: install ## every architecture under every weighting method, exported and asked through /rank; nine minutes
	MULTIRANK_MATRIX=full $(BIN)/python -m pytest tests/e2e/test_matrix.py

test: install ## the whole suite in TEST_PROCESSES (2), against a real Redis that it starts itself
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

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
	rm -rf $(VENV) $(MODELS) runs .data .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info service/*.so
