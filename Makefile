# make repro   rebuild the report      make test   run the tests      make lab   open JupyterLab
# make app      check your own videos  make verify  does the report still hold?  make pdf  print it
# make bench    how fast is it?        make growth  do the full sets fit?        make faults  damaged videos, kill -9
PYTHON ?= python3
BIN = .venv/bin
# dvc starts its stages' commands by name, so the environment's folder comes first on the path.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1
# Modules are compiled once, when they are first imported: without that each stage takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: repro test quick lab app verify pdf readme bench growth faults times clips clean lock

repro: clips
	$(BIN)/python -m health_actions.mend
	dvc repro
	@echo "The report is reports/index.html"

# Whole pipelines in one process, everything else meanwhile in another.
test: .venv/.ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Without the tests that run whole pipelines.
quick: .venv/.ready
	$(BIN)/python -m pytest -m "not pipeline"

lab: .venv/.ready
	MATPLOTLIBRC=$(CURDIR)/matplotlibrc $(BIN)/jupyter lab notebooks

# Hand-wash check and patient monitor in the browser, on this machine alone.
app: .venv/.ready
	MATPLOTLIBRC=$(CURDIR)/matplotlibrc $(BIN)/python -m app

# Names what of the report does not hold any more: recomputed from dvc.lock and the files at hand.
verify: .venv/.ready
	$(BIN)/python -m health_actions.verify

# The report as build/report.pdf, where Chromium is installed.
pdf: .venv/.ready
	$(BIN)/python -m health_actions.pdf

# Catalogues of a thousand to all of NTU's clips; disk and time that the real sets would take.
growth: .venv/.ready
	$(BIN)/python benchmarks/growth.py

# A thousand damaged and hostile videos; a small pipeline killed at random moments. About half an hour.
faults: .venv/.ready
	$(BIN)/python benchmarks/damage.py
	$(BIN)/python benchmarks/kill.py

# The README's tables, from reports/.
readme: .venv/.ready
	$(BIN)/python -m health_actions.readme

# Training times of study A's Table 3 and what a clip takes each of study B's networks, in the last run on this machine:
# they differ from run to run, so no report holds them.
times:
	@for table in build/*/times/*.csv; do echo "$$table"; column -s, -t $$table 2>/dev/null || \
	  echo "no times yet: make repro (results that dvc took from its cache have none)"; done

# Speed and memory beside a plain pipeline, in one run of some minutes; build/benchmarks/bench.csv has the table.
bench: clips
	$(BIN)/python -m benchmarks.bench

# The embedded clips, unless there is a data/ folder: what you put there yourself is never touched.
clips: .venv/.ready
	@test -d data || { dvc fetch data.dvc && dvc checkout -q data.dvc; }

.venv/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed, found " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile -r requirements.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

# Everything that can be made again; data/ and reports/ stay.
clean:
	rm -rf build logs .resume .venv

# New versions for requirements.txt, from what pyproject.toml asks for.
lock: .venv/.ready
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra test --no-annotate --no-header -o .venv/lock.txt pyproject.toml
	{ head -n 1 requirements.txt; grep -v "python_full_version >= .3.1[23]." .venv/lock.txt; } > .venv/requirements.txt
	mv .venv/requirements.txt requirements.txt
