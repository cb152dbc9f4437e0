# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check lock catalogue mutants fuzz clean

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch .venv/ready

# Pretrain, evaluate, embed, search, report on bundled real images: a few minutes on two cores.
demo: .venv/ready
	$(BIN)/python -m tacit.demo

# A report is tried in a real browser where there is one.
BROWSER := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

# Many small computations: a process for each core, and one thread in each, take half the time of one process on all cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup

# What is drawn for the tests is the same each time, so that a commit passes or not; `make test-all` looks elsewhere each time.
test: .venv/ready
	$(PYTEST) --hypothesis-profile=ci -m "not slow $(if $(BROWSER),,and not browser)"

test-all: .venv/ready
	$(PYTEST)

check: .venv/ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/lint-imports

# Each mutation of a card, and each protection taken out, has to turn its test red.
mutants: .venv/ready
	$(BIN)/python -m tests.mutants

# Look for inputs that break a parser, for so many seconds; atheris is no part of the environment, so it lies beside it (Linux).
SECONDS ?= 600
fuzz: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/atheris atheris==3.0.0
	PYTHONPATH=build/atheris $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

catalogue: .venv/ready
	$(BIN)/python -m tacit.methods.catalogue --write

lock: .venv/ready
	{ echo '# Everything that `make` installs, pinned (Python 3.11, Linux). Made by `make lock`.'; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | grep -viE '^(pip|setuptools|wheel)==' | sed 's/^\(torch==[^+]*\)+.*/\1/'; } > requirements.lock

clean:
	rm -rf .venv build dist demo runs
