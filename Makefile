# make repro   rebuild the report      make test   the quick tests     make test-all  every test
# make lab     open JupyterLab         make app    check your own videos
# make verify  does the report hold?   make pdf    print it            make readme    its tables into README.md
# make bench   how fast is it?         make growth do the full sets fit?  make faults damaged videos, kill -9
PYTHON ?= python3
BIN = .venv/bin
# dvc starts its stages' commands by name, so the environment's folder comes first on the path.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1
# Modules are compiled once, when they are first imported: without that each stage takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE
CHROMIUM = $(shell command -v chromium chromium-browser google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" | head -n 1)

.PHONY: repro frames scm mend test test-all lab app verify pdf readme bench growth faults times clips clean lock

# dvc does not look behind links to folders of clips: such clips are looked at each time.
repro: clips mend
	@linked=$$(find data/handwash/ data/ntu/ -type l -exec test -d {} \; -print 2> /dev/null | cut -d/ -f2 | sort -u); \
	  test -z "$$linked" || dvc repro --force --single-item $$(printf "%s_frames " $$linked)
	@test -z "$(TOGETHER)" -o -e build/notebooks/21_report.ipynb || \
	  for goals in frames "$(TOGETHER)" "$(TOGETHER:study-%=both-%)"; do \
	    $(MAKE) --no-print-directory --keep-going -j 2 $$goals || test "$$goals" = frames || break; done
	dvc repro
	@echo "The report is reports/index.html"

# dvc runs one stage after the other. So a first run makes the frames, then starts a dvc for each study, then one for each
# study's stages that need both. With a GPU it does not, since one GPU is not shared. Study B starts later: dvc lets one
# process at a time check data/. The last dvc does what is left, and says what fails. A notebook computes with half of the
# cores; its trainings start a process for each core.
TOGETHER = $(if $(shell command -v nvidia-smi),,study-handwash study-ntu)
NEED_BOTH = ^(reject|landmark_fusion)
PAUSE = 30
HALF = $(shell echo $$((($$(getconf _NPROCESSORS_ONLN) + 1) / 2)))
frames:
	@dvc repro --keep-going handwash_frames ntu_frames
study-%:
	@stages=$$(dvc stage list --name-only 2> /dev/null | grep $* | grep -Ev "$(NEED_BOTH)"); \
	  test $* = handwash || sleep $(PAUSE); test -z "$$stages" || OMP_NUM_THREADS=$(HALF) dvc --wait-for-lock repro $$stages
both-%:
	@stages=$$(dvc stage list --name-only 2> /dev/null | grep -E "$(NEED_BOTH)" | grep $*); \
	  test -z "$$stages" || OMP_NUM_THREADS=$(HALF) dvc --wait-for-lock repro --single-item $$stages

# A copy without .git, as from a ZIP file: dvc asks for one unless it is told.
scm: .venv/.ready
	@test -e .git || dvc config --local core.no_scm true

# Killed by kill -9 while it writes rwlock or dvc.lock, dvc cannot read them again. What is removed here runs again, or
# comes from dvc's cache.
mend: scm
	@test ! -e .dvc/tmp/rwlock || $(BIN)/python -m json.tool .dvc/tmp/rwlock > /dev/null 2>&1 || rm -f .dvc/tmp/rwlock
	@cut() { dvc stage list 2>&1 | grep -q "dvc.lock' "; }; ! { cut && sleep 2 && cut; } || { \
	  echo "dvc.lock was cut off: taking the committed one"; git checkout -q -- dvc.lock 2> /dev/null || rm dvc.lock; }

# Minutes on two cores (README): units, properties, one small run of both studies, the pages in a browser.
test: .venv/.ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# Second runs, kills, damage, clusters, clips of one's own, too.
test-all: .venv/.ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lab: .venv/.ready
	MATPLOTLIBRC=$(CURDIR)/matplotlibrc $(BIN)/jupyter lab notebooks

# Hand-wash check and patient monitor in the browser, on this machine alone.
app: .venv/.ready
	MATPLOTLIBRC=$(CURDIR)/matplotlibrc $(BIN)/python -m app

# Prints nothing where every result in reports/ follows from the files at hand; no stage runs.
verify: scm
	@{ dvc repro --dry --allow-missing 2>&1 | grep -v "didn't change, skipping$$\|^Data and pipelines are up to date\|^$$"; \
	   test ! -e .git || git status --porcelain reports dvc.lock data.dvc; } | { ! grep .; } || { echo "Not up to date, see above: make repro"; exit 1; }

# The report as build/report.pdf.
pdf: .venv/.ready
	@test -n "$(CHROMIUM)" || { echo "no Chromium found; on Debian and Ubuntu: apt install chromium"; exit 1; }
	@test -f reports/index.html || { echo "no reports/index.html; it is made by: make repro"; exit 1; }
	@mkdir -p build
	"$(CHROMIUM)" --headless $(if $(filter 0,$(shell id -u)),--no-sandbox) --no-pdf-header-footer --print-to-pdf=build/report.pdf "file://$(CURDIR)/reports/index.html"

# Catalogues of a thousand to all of NTU's clips; disk and time that the real sets would take.
growth: .venv/.ready
	$(BIN)/python benchmarks/growth.py

# A thousand damaged and hostile videos; a small pipeline killed at random moments. About half an hour.
faults: .venv/.ready
	$(BIN)/python benchmarks/damage.py
	$(BIN)/python benchmarks/kill.py

# The README's tables, from reports/.
readme:
	@for table in reports/*/21_report/*.md; do name=$$(basename $$table .md); \
	  sed -e "/<!-- table: $$name -->/,/<!-- end -->/{/<!--/!d;}" -e "/<!-- table: $$name -->/r $$table" README.md > .README.part \
	  && mv .README.part README.md; done

# Training times of study A's Table 3, what a clip takes each of study B's networks, and the minutes of each training, in
# the last run on this machine: they differ from run to run, so no report holds them.
times: .venv/.ready
	@for table in build/*/times/*.csv; do echo "$$table"; column -s, -t $$table 2>/dev/null || \
	  echo "no times yet: make repro (results that dvc took from its cache have none)"; done
	@$(BIN)/python -m benchmarks.costs

# Speed and memory beside a plain pipeline, in one run of some minutes; build/benchmarks/bench.csv has the table.
bench: clips
	$(BIN)/python -m benchmarks.bench

# The embedded clips, unless there is a data/ folder: what you put there yourself is never touched.
clips: scm
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
