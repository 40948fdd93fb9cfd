# Every target sets up what it needs: a .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
CLUSTER = $(if $(RAY),$(VENV)/.cluster)

SCALE ?= quick
ROWS ?=
STRONG ?=
JOBS ?=
RAY ?=
FLAGS ?=
# Setuptools warns of what every editable installation is.
INSTALL = PYTHONWARNINGS='ignore:Editable installation' $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The published runs come with the repository: they are shown, not made.
PUBLISHED = $(filter published,$(SCALE))
WHERE = --scale=$(SCALE) $(if $(PUBLISHED),--runs_dir=results)
TABLE_FLAGS = $(WHERE) $(if $(PUBLISHED),--strong --show) $(if $(ROWS),--only=$(ROWS)) $(if $(STRONG),--strong) \
	$(if $(JOBS),--jobs=$(JOBS)) $(if $(RAY),--ray=$(RAY)) $(FLAGS)

.PHONY: help setup setup-cluster mnist-table1 cifar10-table2 tiny-imagenet-table3 tiny-imagenet-table4 \
	tiny-imagenet-table5 mnist-followups cifar10-followups figures seeds report claims verify test test-all test-numeric \
	coverage lint smoke docs clean

help:
	@echo "make mnist-table1 [SCALE=smoke|quick|published|paper] [ROWS=clp,lsq] [STRONG=1] [JOBS=2] [RAY=local|auto|HOST:PORT]"
	@echo "    Table 1; quick (default): about 30 minutes on two cores with AVX2, less with bfloat16;"
	@echo "    smoke: a few minutes; published: shows the shipped results in seconds"
	@echo "make cifar10-table2 | tiny-imagenet-table3 | tiny-imagenet-table4 | tiny-imagenet-table5"
	@echo "    hours (an estimate is printed first); requires the data set"
	@echo "make verify                     attacks the shipped models again: 7 to 13 minutes on two cores"
	@echo "make claims | report            from stored results, in seconds"
	@echo "make figures | figure1 ... figure7 | heat_maps_mnist"
	@echo "                                from stored results, in minutes"
	@echo "make mnist-followups            what came after the paper beside ALP: 3 minutes of training a row"
	@echo "make cifar10-followups          the same on CIFAR-10: 10 minutes a row; requires the data set"
	@echo "make seeds                      trains each row of ROWS with three seeds"
	@echo "make test | test-all | test-numeric | coverage | lint | smoke"
	@echo "                                checks for contributors; test-all includes slow tests"
	@echo "make docs                       builds the documentation as a site: build/docs/index.html"
	@echo "make setup | setup-cluster      sets up .venv once (2 GB, a few minutes); other targets do it too"
	@echo "make clean                      removes .venv and prepared data sets"

setup: $(READY)

$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: $$($(PYTHON) --version) is too old: expected Python 3.10 or newer (make PYTHON=...)"; exit 2; }
	@echo "setting up $(VENV) (2 GB, a few minutes, only once)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) pip setuptools wheel
	@$(INSTALL) --no-build-isolation -e '.[dev]'
	@touch $(READY)

# What --ray needs besides.
setup-cluster: $(VENV)/.cluster

$(VENV)/.cluster: $(READY)
	@$(INSTALL) --no-build-isolation -e '.[cluster]'
	@touch $@

# What is known already is shown first: a training's own numbers take their time.
STORED = --scale=published --runs_dir=results

mnist-table1: $(READY) $(CLUSTER)
	$(if $(PUBLISHED),,@echo "The published long run, which comes with the repository, and its verdicts; your own run follows:"; \
		$(RUN) -m experiments.table --flagfile=flags/tables/table1.cfg $(STORED) --strong --show && \
		$(RUN) -m experiments.claims $(STORED); echo)
	@$(RUN) -m experiments.table --flagfile=flags/tables/table1.cfg $(TABLE_FLAGS)

cifar10-table2: $(READY) $(CLUSTER)
	@$(RUN) -m experiments.table --flagfile=flags/tables/table2.cfg $(TABLE_FLAGS)

tiny-imagenet-table3 tiny-imagenet-table4 tiny-imagenet-table5: tiny-imagenet-%: $(READY) $(CLUSTER)
	@$(RUN) -m experiments.table --flagfile=flags/tables/$*.cfg $(TABLE_FLAGS)

# What came after the paper, at equal CPU time; SCALE=published looks for a run in results/.
FOLLOWUPS = --scale=$(if $(filter file,$(origin SCALE)),followups,$(if $(PUBLISHED),followups,$(SCALE))) \
	$(if $(PUBLISHED),--runs_dir=results)

mnist-followups: NAME = followups
cifar10-followups: NAME = followups_cifar10
mnist-followups cifar10-followups: $(READY) $(CLUSTER)
	$(if $(PUBLISHED),,@$(RUN) -m experiments.table --flagfile=flags/tables/$(NAME).cfg $(FOLLOWUPS) \
		$(if $(ROWS),--only=$(ROWS)) $(if $(JOBS),--jobs=$(JOBS)) $(if $(RAY),--ray=$(RAY)) $(FLAGS))
	@$(RUN) -m experiments.followups --table=$(NAME) $(FOLLOWUPS)

# How much numbers move between trainings that differ in their seed.
seeds: $(READY)
	@for seed in 0 1 2; do \
		$(RUN) -m experiments.table --flagfile=flags/tables/table1.cfg --scale=seeds \
			--only=$(or $(ROWS),clp,lsq) --training_seed=$$seed $(if $(JOBS),--jobs=$(JOBS)) $(FLAGS) || exit; \
	done
	@$(RUN) -m experiments.seeds $(FLAGS)

figures: $(READY)
	@$(RUN) -m experiments.figures $(WHERE) $(FLAGS)

# One figure: make figure1 … figure7, make heat_maps_mnist, make restarts_mnist …
figure% heat_maps_% restarts_% training_%: $(READY)
	@$(RUN) -m experiments.figures $(WHERE) --only=$@ $(FLAGS)

report: $(READY)
	@$(RUN) -m experiments.report $(WHERE) $(if $(PUBLISHED),--out=results/report.html) $(FLAGS)

# Of the published runs, unless a scale is named.
claims: $(READY)
	@$(RUN) -m experiments.claims $(if $(filter file,$(origin SCALE)),--scale=published --runs_dir=results,$(WHERE)) $(FLAGS)

# Attacks the published models afresh and compares image by image.
verify: $(READY)
	@$(RUN) -m experiments.verify $(if $(ROWS),--rows=$(ROWS)) $(FLAGS)

# Tests at a time have one core each: threads of NumPy's would wait for each other, busily.
PROCESSES ?= 2
PYTEST = OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest --numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder --durations=25

test: $(READY)
	@$(PYTEST) -m 'not slow'

# With what takes more than about two seconds, the installed wheel, README's commands, whole tables, and a Ray
# cluster where there is one.
test-all: $(READY)
	@$(PYTEST)

# How much of the code `make test` runs, commands that tests start included.
coverage: $(VENV)/.coverage
	@$(PYTEST) -m 'not slow' --cov --cov-report=term

$(VENV)/.coverage: $(READY)
	@$(INSTALL) --no-build-isolation -e '.[coverage]'
	@touch $@

# What rounds otherwise under other kernels, slow or not: for ONEDNN_MAX_CPU_ISA=... make test-numeric.
NUMERIC = tests/attacks tests/models/test_architectures.py tests/test_gradients.py tests/training/test_passes.py \
	tests/evaluation/test_restarts.py tests/evaluation/test_stored.py tests/evaluation/test_phases.py

test-numeric: $(READY)
	@$(PYTEST) $(NUMERIC)

lint: $(READY)
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

smoke: $(READY)
	@tests/smoke.sh $(RUN)

# Strict: a broken link is an error. The network is only needed for the packages, once.
docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "build/docs/index.html"

$(VENV)/.docs: $(READY)
	@$(INSTALL) --no-build-isolation -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .tfds
