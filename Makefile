# Frequent tasks; `make` alone lists them.
#
# The project runs from its checkout and is not installed into the environment: `lightning_app` is
# also the import name of a dead package of the index, and with `python -m` the checkout comes
# first on the path. So `install` takes the requirements out of pyproject.toml, and nothing else.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
EXTRAS ?= offline-weights dev
CONSTRAINTS ?= constraints.txt
RUN_PYTHON := $(VENV)/bin/python
APP := $(RUN_PYTHON) -m lightning_app

# The stamp is written last: an interrupted installation leaves none and is taken up again.
empty :=
STAMP := $(VENV)/.installed-$(subst $(empty) $(empty),+,$(strip $(EXTRAS)))

# Chosen by running it: a version manager's `python3.13` may exist and still refuse to start, and
# a distribution's may lack the module that puts pip into an environment.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

CANDIDATES = $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)

define REQUIREMENTS
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
unknown = [name for name in sys.argv[1:] if name not in extras]
if unknown:
    sys.exit(f"EXTRAS: pyproject.toml has no extra {unknown[0]!r}; it has {', '.join(extras)}")
print(*project["dependencies"], *(line for name in sys.argv[1:] for line in extras[name]), sep="\n")
endef
export REQUIREMENTS

# Settings of a run, passed on unchanged; the program chooses the recipe.
CONFIG_OPTION = $(if $(CONFIG),--config '$(CONFIG)')
DATA_SETTING = $(if $(DATA),'data.root=$(DATA)')
RECIPE = --recipe '$(or $(CONFIG),configs/pretrain.yaml)' $(if $(DATA),--root '$(DATA)')
RUN_FOLDERS = $(foreach run,$(RUN),'$(run)')

.PHONY: help
help: ## list the targets
	@echo 'usage: make TARGET [DATA=folder] [CONFIG=file.yaml] [RUN=folder] [ENCODERS="runs/x imagenet:resnet18"] [ARGS="key=value ..."]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: install
install: $(STAMP) ## make .venv with the tested versions (PYTHON=... names the interpreter)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@rm -f $(VENV)/.installed-*
	@if [ ! -x $(RUN_PYTHON) ]; then \
	  for candidate in $(CANDIDATES) ''; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1; then break; fi; \
	  done; \
	  if [ -z "$$candidate" ]; then \
	    echo 'no Python 3.11, 3.12 or 3.13 with venv and ensurepip among: $(CANDIDATES)' >&2; \
	    echo 'install one (on Debian and Ubuntu with its -venv package), or name it:' >&2; \
	    echo '  make install PYTHON=/path/to/python' >&2; \
	    exit 1; \
	  fi; \
	  "$$candidate" -m venv $(VENV); \
	fi
	@has_pip() { $(RUN_PYTHON) -m pip --version >/dev/null 2>&1; }; \
	if ! $(RUN_PYTHON) -c '$(SUITABLE)' >/dev/null 2>&1 \
	  || ! { has_pip || $(RUN_PYTHON) -m ensurepip && has_pip; }; then \
	  echo '$(VENV) is damaged or has an unsuitable Python: remove it and run make install again' >&2; \
	  exit 1; \
	fi
	@$(RUN_PYTHON) -c "$$REQUIREMENTS" $(EXTRAS) > $(VENV)/requirements.txt
	$(RUN_PYTHON) -m pip install --disable-pip-version-check \
	  -c $(CONSTRAINTS) -r $(VENV)/requirements.txt
	@touch $@

# For `make install CONSTRAINTS=oldest.txt`: the oldest versions that pyproject.toml allows.
oldest.txt: pyproject.toml
	@$(firstword $(CANDIDATES)) -c "$$REQUIREMENTS" $(EXTRAS) > $@.in
	$(firstword $(CANDIDATES)) -m uv pip compile --quiet --resolution lowest-direct -o $@ $@.in
	@rm $@.in

.PHONY: doctor
doctor: $(STAMP) ## check this machine and report problems
	$(APP) doctor

# A faulty dataset, or one that must be downloaded by hand, does not stop the others.
.PHONY: data
data: $(STAMP) ## download, prepare and verify the datasets of CONFIG (the real recipe) in DATA
	@worst=0; for action in download prepare verify; do \
	  echo "$(APP) datasets $$action"; \
	  $(APP) datasets $$action $(RECIPE) $(ARGS) && code=0 || code=$$?; \
	  case $$code in 0) ;; 2) worst=2 ;; *) exit $$code ;; esac; \
	done; exit $$worst

.PHONY: pretrain
pretrain: $(STAMP) ## train one encoder on all datasets; without data, run the synthetic demo
	$(APP) pretrain $(CONFIG_OPTION) $(DATA_SETTING) $(ARGS)

.PHONY: rehearse
rehearse: $(STAMP) ## will CONFIG run here? checks without data, then two steps on synthetic copies
	$(APP) rehearse $(CONFIG_OPTION) $(DATA_SETTING) $(ARGS)

.PHONY: demo
demo: $(STAMP) ## the whole line on synthetic tissue: the pretrain of a machine without data
	$(APP) pretrain --config '$(or $(CONFIG),configs/demo.yaml)' $(ARGS)

.PHONY: probe
probe: $(STAMP) ## compare frozen features by random forests on few labels
	$(APP) probe $(CONFIG_OPTION) $(RUN_FOLDERS) $(ENCODERS) $(DATA_SETTING) $(ARGS)

.PHONY: ablate
ablate: $(STAMP) ## which dataset helps? train without each one and on each alone, resumable
	$(APP) ablate $(CONFIG_OPTION) $(DATA_SETTING) $(ARGS)

.PHONY: report
report: $(STAMP) ## write report.html of RUN again; of several, a leaderboard
	$(APP) report $(RUN_FOLDERS) $(ARGS)

# Tests of one file stay in one process: they share what the file's fixtures made.
.PHONY: test
test: $(STAMP) ## run the tests in two processes (ARGS="-k name" picks some, ARGS=-n0 takes one)
	$(RUN_PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: faults
faults: $(STAMP) ## prepare 2,000 damaged inputs; each must be refused, counted or harmless
	$(RUN_PYTHON) -m tests.faults.campaign $(ARGS)

# Peers stay out of the product's environment, whose packages theirs borrows.
BENCH := .venv-bench
PEERS := litdata==0.2.76 webdataset==1.0.2 segmentation-models-pytorch==0.6.0
.PHONY: bench
bench: $(STAMP) ## measure speed against peers and limits, and write docs/speed.md
	@if [ ! -e $(BENCH)/.installed ]; then \
	  $(RUN_PYTHON) -m venv $(BENCH); \
	  packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	  $(RUN_PYTHON) -c "$$packages" > "$$($(BENCH)/bin/python -c "$$packages")/project.pth"; \
	  $(BENCH)/bin/python -m pip install --disable-pip-version-check $(PEERS); \
	  touch $(BENCH)/.installed; \
	fi
	$(BENCH)/bin/python -m benchmarks.run $(ARGS)

.PHONY: docs
docs: $(STAMP) ## build the documentation into build/site; a warning or a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN_PYTHON) -m mkdocs build --strict --quiet
	@echo 'open build/site/index.html'

.PHONY: check
check: $(STAMP) ## lint, formatting and types
	$(RUN_PYTHON) -m ruff check
	$(RUN_PYTHON) -m ruff format --check
	$(RUN_PYTHON) -m mypy

.PHONY: format
format: $(STAMP) ## apply automatic fixes and format
	$(RUN_PYTHON) -m ruff check --fix
	$(RUN_PYTHON) -m ruff format

.PHONY: clean
clean: ## remove caches; data, runs and .venv stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
