# Each target first makes .venv when it is missing or stale. GNU make 3.81 or newer, any POSIX shell.
#   PYTHON=/path/to/python3   the Python to make .venv with      UV=   use pip although uv is installed
#   SCALE=full                charts at full scale               ARGS=...   more arguments for pytest, JupyterLab, Voilà, uv
#   ONLY="05 06"              for charts: of these notebooks alone
#   FRESH=1                   for lab: set your copy of the notebooks aside, and start anew

PY := .venv/bin/python
READY := .venv/.ready
SCALE := quick
unexport PYTHONPATH PYTHONHOME

# A .venv that was moved, cut short or lost its Python is made again; so is one for which another PYTHON is named.
ifneq "$(shell sh setup.sh check && echo whole)" "whole"
.PHONY: $(READY)
else ifeq "$(origin PYTHON)" "command line"
.PHONY: $(READY)
endif

.NOTPARALLEL: # timings must not run beside each other
.PHONY: help setup lab dashboard charts test test-all notebooks lock

help:
	@echo 'make lab        open the notebooks in JupyterLab, in work/, a copy that is yours (FRESH=1: a new one)'
	@echo 'make dashboard  show the panels, large, on a page of their own'
	@echo 'make charts     run the notebooks and draw their charts from this machine (SCALE=full: the long way)'
	@echo 'make test       run the tests'
	@echo 'make test-all   run them, and then those that need PostgreSQL, redis-server and Chromium'
	@echo 'make setup      make .venv, which the others do by themselves'
	@echo 'make notebooks  run the notebooks at full scale and save their outputs and charts, before a commit'
	@echo 'make lock       compile the locks from pyproject.toml (needs uv; ARGS=--upgrade takes newer versions)'

setup: $(READY)
	@echo '.venv is ready. Next: make lab, make charts or make test.'

lab: $(READY)
	$(PY) -m cachelab lab $(if $(filter-out 0,$(FRESH)),--fresh) $(ARGS)

dashboard: $(READY)
	$(PY) -m cachelab.lab.panels.dashboard $(ARGS)

charts: $(READY)
	$(PY) -m cachelab charts --scale $(SCALE) $(if $(ONLY),--only $(ONLY))

test: $(READY)
	$(PY) -m pytest -n auto $(ARGS)

test-all: test
	$(PY) -m pytest -n auto -m further $(ARGS)

notebooks: $(READY)
	$(PY) -m cachelab.lab.notebooks nav
	$(PY) -m cachelab.lab.notebooks run --scale full --write
	$(PY) -m cachelab.lab.notebooks table

$(READY): requirements.txt pyproject.toml setup.sh
	@sh setup.sh

COMPILE = uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' $(ARGS)
DEPENDENCIES = pyproject.toml $(addprefix --extra ,server database postgres lab test)
lock:
	sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | $(COMPILE) $(DEPENDENCIES) - -o requirements.txt
	for extra in browser benchmarks; do \
	  sed -n "s/^$$extra = \[\(.*\)\]/\1/p" pyproject.toml | tr -d '" ' | tr , '\n' | \
	  $(COMPILE) - -c requirements.txt -o requirements-$$extra.txt || exit; done
