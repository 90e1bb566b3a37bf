# make demo: the whole job on the embedded default. make methods: every selection method on it; make methods-text: those
# that look for writing, on a pool with writing. make test: every test that pip packages alone can run.
PYTHON ?= python3
BIN := .venv/bin
# The default, bfloat16, is slow on most CPUs, and on the others a quarter faster with a model as small as this.
PRECISION := precision=fp32
# make demo SEEDS='0 1 2' trains each of the two methods three times.
SEEDS ?= 0
FIRST = $(firstword $(SEEDS))
POOL := demo/cache/demo-v3
TEXT_POOL := demo/cache/demo-text-v1
export POOLBENCH_CACHE := $(CURDIR)/demo/cache

.PHONY: demo methods methods-text test lint clean

# $(call method,<runs>,<as the leaderboard has it>,<more of the train command>,<more of the submit command>)
define method
	@set -e; for seed in $(SEEDS); do run=demo/runs/$(1)-$$seed; set -x; \
		$(BIN)/python -m train scale=tiny seed=$$seed name=$(1)-$$seed out=demo/runs $(3) $(PRECISION); \
		$(BIN)/python -m evaluate run=$$run; \
		$(BIN)/python -m leaderboard submit run=$$run method='$(2)' author='make demo' track=filtering $(4); \
		{ set +x; } 2>/dev/null; done
endef

demo: .venv/installed
	@$(BIN)/python -m train.demo_time seeds='$(SEEDS)' $(PRECISION)
	@echo '== 1. Train on the pool as it is: half of its captions belong to other pictures'
	$(call method,no_filter,no filter,,dataset_size=29495)
	@echo '== 2. Score the pool with the model just trained, and keep the better half'
	$(BIN)/python -m curate.score checkpoint=demo/runs/no_filter-$(FIRST) shards=$(POOL)/pool out=demo/scored arch=b32
	$(BIN)/python -m curate filter=clip_score filter.arch=b32 filter.fraction=0.5 pool=demo/scored out=demo/clip_score.npy
	$(BIN)/python -m curate.inspect demo/clip_score.npy pool=demo/scored against=$(POOL)/right.npy samples=$(POOL)/pool \
		out=demo/clip_score.html
	@echo '== 3. Train on what is kept, from the start and with the same budget'
	$(call method,clip_score,CLIP score of one half,subset=demo/clip_score.npy)
	@echo '== 4. Compare'
	$(BIN)/python -m evaluate.contact_sheet run=demo/runs/clip_score-$(FIRST) task=demo/openmoji_retrieval
	$(BIN)/python -m evaluate.compare demo/runs/clip_score-$(FIRST) demo/runs/no_filter-$(FIRST)
	$(BIN)/python -m leaderboard build demo/runs out=demo
	@echo
	@echo 'What it did: trained a CLIP model from scratch on a pool of emoji under right and wrong names, let it choose the'
	@echo 'samples to believe, and trained another one on these. Held-out pictures say which is better. Where things lie:'
	@echo '  demo/index.html, demo/leaderboard.json   the leaderboard'
	@echo '  demo/clip_score.html   what was kept and dropped, and how much of it was right'
	@echo '  demo/runs/             the runs: run.json, metrics.jsonl, checkpoints/, eval_results.jsonl, submission.json'
	@echo '  demo/runs/clip_score-$(FIRST)/contact_sheet.png   held-out pictures with the captions the model ranks first'
	@echo '  demo/cache/            the pool, its metadata, the evaluation sets, CREDITS.md'

# What every selection method does, in the folder of `make demo`: a page, and the short table of docs/methods.md. It goes on
# where it was stopped.
methods: SEEDS = 0 1 2
methods: .venv/dev
	$(BIN)/python bench/demo_methods.py --seeds $(SEEDS) --train '$(PRECISION)' --page bench/results/demo_methods.md \
		--docs docs/methods.md

# The same on the pool with writing, in a folder of its own.
methods-text: SEEDS = 0 1 2
methods-text: .venv/dev
	$(BIN)/python -m demodata.text_pool
	$(BIN)/python bench/demo_methods.py --pool $(TEXT_POOL) --table bench/demo_text_methods.yaml --out demo/text \
		--seeds $(SEEDS) --train '$(PRECISION)' --page bench/results/demo_text_methods.md --docs docs/methods.md

# Two processes, a file in one of them, in the order of tests/conftest.py: most tests start processes of their own, and
# wait. Where Python is told to keep no compiled code, each of those would compile all of ours again.
test: .venv/dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy --follow-imports=silent bench

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
