# make demo: the whole job on the embedded default. make test: every test that pip packages alone can run.
PYTHON ?= python3
BIN := .venv/bin
RUN := demo/runs/tiny
# A CPU without AVX-512 multiplies bfloat16, the default, some 15 times slower than float32.
PRECISION := $(shell test -r /proc/cpuinfo && ! grep -q avx512 /proc/cpuinfo && echo precision=fp32)
export POOLBENCH_CACHE := $(CURDIR)/demo/cache

.PHONY: demo test lint clean

demo: .venv/installed
	@echo '== 1. Train on the demo pool (python -m train scale=tiny): a few minutes on two cores'
	$(BIN)/python -m train scale=tiny name=tiny out=demo/runs $(PRECISION)
	@echo '== 2. Evaluate on pictures that are not in the pool'
	$(BIN)/python -m evaluate run=$(RUN)
	$(BIN)/python -m evaluate.contact_sheet run=$(RUN) task=demo/openmoji_retrieval
	@echo '== 3. Submit, and build the leaderboard'
	$(BIN)/python -m leaderboard submit run=$(RUN) method='no filter' author='make demo' track=filtering \
		dataset_size=14752
	$(BIN)/python -m leaderboard build demo/runs out=demo
	@echo
	@echo 'What it did: trained a CLIP model from scratch on a pool of emoji and their names, scored it on held-out ones,'
	@echo 'and ranked it. Where things lie:'
	@echo '  $(RUN)/                     the run: run.json, metrics.jsonl, checkpoints/, eval_results.jsonl'
	@echo '  $(RUN)/contact_sheet.png    held-out pictures with the captions the model ranks first'
	@echo '  demo/leaderboard.json, demo/index.html   the leaderboard'
	@echo '  demo/cache/                       the pool, its metadata, the evaluation sets, CREDITS.md'

# Two processes, a file in one of them: most tests start processes of their own, and wait.
test: .venv/dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf demo .venv
