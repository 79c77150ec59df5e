# Two targets do everything on a machine that has Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEPLOY := $(VENV)/.installed-deploy
BROWSER := $(VENV)/.installed-browser
# Test processes side by side; each has servers of its own. Two cores bear four: many tests wait for real processes.
WORKERS ?= 4
SHORT  := -m "not slow and not debian and not deploy and not browser"
# Or each test process, and each of some hundred commands that the tests start, compiles all there is anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long install lint format types bytecode unit coverage bench bench-scale bench-senders bench-million bench-growth bench-history bench-page bench-cost bench-relay chaos drill reference vendor test-api test-hostile test-pgbouncer test-deploy hashes licences docs audit screenshots dashboard test-alerts clean test-browser

demo: install
	@$(BIN)/tallyhook demo $(ARGS)

# What needs one core goes beside what needs the other; the tests need both.
test: install
	@$(MAKE) --no-print-directory --jobs=2 lint types bytecode
	@$(MAKE) --no-print-directory unit

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Tallyhook needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

# What only the targets below need: 400 MB of validators and the pages' theme.
$(DEPLOY): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,deploy,docs]'
	@touch $(DEPLOY)

# What drives a browser: 130 MB. No browser is downloaded: Debian's is used.
$(BROWSER): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser]'
	@touch $(BROWSER)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache pyproject.toml imports-at-run-time.toml
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive app workers deploy/wheel deploy/healthcheck.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

# Compiles what the tests import, once: each test process would do it for itself, and rewrite all tests' asserts.
# What cannot be imported the tests say.
bytecode: install
	@$(BIN)/pytest --collect-only -qq $(SHORT) >/dev/null 2>&1 || true

unit: install
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(SHORT) $(ARGS)

# The same tests, and which lines and branches they reach; tracing makes them half as slow again.
coverage: install
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(SHORT) --cov --cov-report=term $(ARGS)

# With the long forms of soak, chaos and scale; what is generated is other each time.
test-long: install
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal --hypothesis-profile=looking $(ARGS)

# Every benchmark against its reference, for docs/performance.md; at most ten minutes on two quiet cores.
# ARGS="--only settle --store postgresql --rounds 3" measures a part and keeps nothing without --keep.
bench: install
	$(BIN)/python -m benchmarks.bench $(ARGS)

# The runs at full scale; each prints its figures and keeps them in benchmarks/results/scale.json.
bench-scale: install
	$(BIN)/python -m benchmarks.scale $(ARGS)

# What a task costs in processor time and bytes, against an earlier commit; ten minutes. Ends with 1 when a bar is missed.
bench-cost: install
	$(BIN)/python -m benchmarks.cost $(ARGS)

# How fast 20,000 results are posted to a receiver that does nothing; ARGS="--store sqlite" on the other store.
bench-relay: install
	$(BIN)/python -m benchmarks.relay $(ARGS)

bench-senders: install
	$(BIN)/python -m benchmarks.scale --tasks 30000 --workers 4 $(ARGS)

bench-million: install
	$(BIN)/python -m benchmarks.scale --tasks 1000000 --compare 10000 --short-answers --batch 100 --rate 0 $(ARGS)

# What claim, settle and sweep cost beside 2,000,000 old tasks; ends with 1 when it is a fifth more.
bench-growth: install
	$(BIN)/python -m benchmarks.growth $(ARGS)

# The same beside 10,000,000 old tasks in PostgreSQL, and what dropping a day does: half an hour, 25 GB of disk.
bench-history: install
	$(BIN)/python -m benchmarks.history $(ARGS)

# What each page costs beside 5,000,000 tasks in PostgreSQL, cold and hot; 10 GB of disk.
bench-page: install
	$(BIN)/python -m benchmarks.page $(ARGS)

# The reference part of docs/api.md, made of the table of routes.
reference: install
	$(BIN)/python -m app.api.reference

# The scripts of others that the page brings, fetched again and compared with what npm says of them. Needs npm.
vendor: install
	$(BIN)/python deploy/vendor.py

# Faults of machines, servers and processes under load, some ten minutes; needs root, nginx and iproute2.
# ARGS=--short takes two or three.
drill: install
	$(BIN)/python -m benchmarks.drill $(ARGS)

chaos: install
	$(BIN)/python -m benchmarks.chaos $(ARGS)

# Hostile bodies under true signatures, other ones each time; a failure prints what makes it come again.
test-hostile: install
	$(BIN)/pytest --numprocesses $(WORKERS) -m slow tests/integration/test_hostile_bodies.py $(ARGS)

# 150 generated requests of each kind to each route of the API, on each database: a quarter of an hour.
test-api: install
	$(BIN)/pytest -m slow tests/e2e/test_api_schema.py $(ARGS)

# Against a real PgBouncer in transaction mode. Installs nothing: without the package it says what it skipped.
test-pgbouncer: install
	$(BIN)/pytest -rs tests/e2e/test_pgbouncer.py $(ARGS)

# Every file of deploy/, run where this machine can and validated otherwise. Without root, a package of Debian's or a
# network it says what it skipped.
test-deploy: $(DEPLOY)
	$(BIN)/pytest -rs tests/deploy tests/e2e/test_sentinel.py tests/e2e/test_procfile.py $(ARGS)

# The lists of what an image installs, with the hash of every file: after each change of a dependency.
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --no-annotate --constraint constraints.txt
hashes: $(DEPLOY)
	$(COMPILE) pyproject.toml --extra objects --extra mcp --extra otel --output-file deploy/requirements.txt
	$(COMPILE) deploy/build-requirements.in --output-file deploy/build-requirements.txt

# deploy/grafana/tallyhook.json, made of the list in dashboard.py.
dashboard: install
	$(BIN)/python deploy/grafana/dashboard.py

# The table of docs/licences.md, made of what is installed.
licences: install
	$(BIN)/python deploy/licences.py

# Known faults of what an image installs. Ends with 1 also where the advisories cannot be reached.
audit: $(DEPLOY)
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement deploy/requirements.txt $(ARGS)

# The pages of docs/ as a site in site/; a broken link ends it.
docs: $(DEPLOY)
	$(BIN)/mkdocs build --strict

# People's ways through the page in a real browser, with axe on each page, and without JavaScript; some four minutes.
# Needs a Chromium: `apt-get install chromium`. Without one it says what it skipped.
test-browser: $(BROWSER)
	$(BIN)/pytest -rs -m browser tests/browser $(ARGS)

# Pictures of the pages that people look at, wide and narrow, light and dark, in screenshots/; and what of them
# cannot be read. Installs nothing: without a Chromium it says what it skipped.
screenshots: $(BROWSER)
	SCREENSHOTS=$(CURDIR)/screenshots $(BIN)/pytest -rs tests/e2e/test_pages.py tests/browser/test_reading_for_all.py -k "not without_script" $(ARGS)

# Each alert of deploy/prometheus fires, and clears, by metrics of real processes that meet the fault: five minutes,
# three stacks side by side. ACTS=drift,clock_off plays some faults alone.
# Needs promtool: `apt-get install prometheus`, or PROMTOOL=/path/of/it. Without it it says what it skipped.
test-alerts: install
	$(BIN)/pytest -rs --numprocesses 3 tests/e2e/test_alerts_fire.py $(ARGS)

clean:
	rm -rf $(VENV) .tallyhook .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
