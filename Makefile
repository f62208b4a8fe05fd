# make demo   serve the demo site on 127.0.0.1:8000 (PORT=, DB=mariadb, DB=mysql, DB=postgresql)
# make test   every check there is; PYTHON=python3.13 chooses the interpreter
# make django-suite   Django's own tests, with its engines and with ours (ENGINE=mysql, ENGINE=gis, MODULES="backends ...")
# make ecosystem   other packages' own tests, with Django's engines and with ours (SUITES="django-silk", SHORT=1)
# make fresh   the README's commands in a new container of Debian stable, from a clone of HEAD (root, with podman)
# make fleet   the proof that many hosts never exceed one budget, on containers under load (root, with podman)
# make docs   the settings page from the option table, and the documentation in build/docs
# make captures   run the commands in the documents, and write what they print
# make matrix   the tests on every supported combination (LEGS="own sid-3.15")
PYTHON ?= python3
PORT ?= 8000
DB ?= sqlite
ENGINE ?= all

# One environment for each version of Python, so that several can be tested from one checkout.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/$(VERSION)
NO_PYTHON = $(error $(PYTHON) does not run. Install Python 3.11 or newer, on Debian with apt-get install python3, or name one with PYTHON=)
SET_UP = @$(if $(VERSION),,$(NO_PYTHON))$(PYTHON) tools/environment.py $(VENV)
BIN := $(VENV)/bin
DOCUMENTS = $(BIN)/sphinx-build -W --keep-going -q -d build/doctrees docs build/docs
SITE := FULLHOUSE_DEMO_FOLDER=build/demo $(BIN)/python -m fullhouse.demo --bind 127.0.0.1:$(PORT)

.PHONY: help demo test check lock docs captures bench-connections clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/demo-$(DB)
ifeq ($(DB),sqlite)
	@$(SITE)
else
	@$(BIN)/python tools/private_servers.py $(DB) -- env $(SITE)
endif

test: check
	$(BIN)/python -m pytest $(PYTEST)

check: $(VENV)/test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/settings_page.py --check
	$(DOCUMENTS)

.PHONY: django-suite
django-suite: $(VENV)/test
	$(BIN)/python tools/django_suite.py $(ENGINE) $(if $(MODULES),--modules $(MODULES))

.PHONY: ecosystem
ecosystem: $(VENV)/test
	$(if $(SUITES),,$(BIN)/python -m pytest tests/ecosystem)
	$(BIN)/python tools/ecosystem.py $(if $(SHORT),--short) $(SUITES)

.PHONY: fresh matrix
fresh:
	@$(PYTHON) tools/matrix.py trixie

.PHONY: fleet
fleet: $(VENV)/test
	@$(BIN)/python tools/fleet.py

matrix:
	@$(PYTHON) tools/matrix.py $(LEGS)

# Strictly: a broken link, or a page outside the navigation, is an error. The pages are in build/docs.
docs: $(VENV)/test
	$(BIN)/python tools/settings_page.py
	$(DOCUMENTS)

captures: $(VENV)/test
	$(BIN)/python tools/captured_output.py

# The demo on SQLite needs no compiler and no system package; each server brings its driver.
$(VENV)/demo-%: requirements/test.txt pyproject.toml
	$(SET_UP) --for demo-$*
	@touch $@

$(VENV)/test: requirements/test.txt pyproject.toml
	$(SET_UP) --for test
	@touch $@

bench-connections: $(VENV)/test
	$(BIN)/python -m benchmarks.connections

lock:
	$(PYTHON) -m uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --quiet --no-header \
	  --no-emit-index-url --no-emit-find-links requirements/test.in -o requirements/test.txt

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
