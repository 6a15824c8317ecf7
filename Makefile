# Everything runs from .venv, made on first use with the pinned versions of constraints.txt.
# Another interpreter than the first one found: make PYTHON=/path/to/python demo

.DEFAULT_GOAL := help
.PHONY: help demo quick quick-lint quick-tests test tests-here test-all tests-everywhere test-lowest lint soak faults \
	fuzz mutants docs docs-serve bench bench-quick constraints clean
.DELETE_ON_ERROR:

# Each worker of the tests, and each process that a test starts, would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)

venv := .venv/bin/python
pip := $(venv) -m pip -qq --disable-pip-version-check
install := $(pip) install --constraint constraints.txt
build := hatchling hatch-fancy-pypi-readme

help:
	@echo 'make demo         a signed, streamed chat over each transport, against the embedded service'
	@echo 'make quick        lint, types by mypy, and the tests of core and transports; a minute'
	@echo 'make test         lint, types, all tests, and their coverage; five minutes'
	@echo '                  some tests: make test TESTS="tests/core/test_reply.py -k marker"'
	@echo 'make test-all     the same, then the tests on the other Pythons of 3.11 to 3.14 found here'
	@echo 'make test-lowest  the tests of adapters and command with the lowest versions of the extras'
	@echo 'make test-latest  the same with the latest versions, instead of the pinned ones'
	@echo 'make lint         lint, and types by mypy and pyright'
	@echo 'make faults       the fault table over each transport; its outcome goes to docs/faults.md'
	@echo 'make docs         the site, in build/docs'
	@echo 'make docs-serve   the same on a port of this machine, built anew at each change'
	@echo 'make bench        the speed, beside bare libraries and other clients; half an hour or more'
	@echo 'make bench-quick  the same in a minute, for an impression'
	@echo 'make soak         many calls at once on each transport, a fault in every third, for minutes'
	@echo 'make fuzz         any bytes to the parsers for a minute, or for FUZZ_SECONDS=...'
	@echo 'make mutants      whether the tests of the core notice when it is changed; half an hour'
	@echo 'make constraints  refresh the pinned versions'
	@echo 'make clean        remove what the above have made'

demo: .venv/demo.stamp
	@$(venv) -m gprochat.demo

# A type checker uses one core, so it runs beside the tests. Pyright keeps no cache: its 40 seconds
# would be spent each time.
quick: .venv/dev.stamp
	@$(MAKE) --no-print-directory -j 2 quick-lint quick-tests

quick-lint: .venv/dev.stamp
	@$(venv) -m nox --session lint mypy

quick-tests: .venv/dev.stamp
	@$(venv) -m pytest -q -n 3 --dist worksteal --hypothesis-profile quick tests/core tests/transports

ifdef TESTS
test: .venv/dev.stamp
	@$(venv) -m pytest $(TESTS)
else
test: .venv/dev.stamp
	@$(MAKE) --no-print-directory -j 2 lint tests-here
endif

tests-here: .venv/dev.stamp
	@$(venv) noxfile.py --tags here

test-all: .venv/dev.stamp
	@$(MAKE) --no-print-directory -j 2 lint tests-everywhere

tests-everywhere: .venv/dev.stamp
	@$(venv) noxfile.py --tags tests

test-lowest: .venv/dev.stamp
	@$(venv) -m nox --session lowest

.PHONY: test-latest
test-latest: .venv/dev.stamp
	@$(venv) -m nox --session latest

lint: .venv/dev.stamp
	@$(venv) -m nox --tags lint

faults: .venv/dev.stamp
	@$(venv) -m tests.faults.report

FUZZ_SECONDS ?= 60

fuzz: .venv/fuzz.stamp
	@$(venv) -m tests.fuzz $(FUZZ_SECONDS)

mutants: .venv/mutants.stamp
	@$(venv) -m tests.mutants

docs: .venv/dev.stamp
	@$(venv) -m nox --session docs -- build
	@echo 'Open build/docs/index.html'

docs-serve: .venv/dev.stamp
	@$(venv) -m nox --session docs -- serve

$(venv):
	@test -n "$(PYTHON)" || { echo 'No Python of 3.11 or newer found; name one: make PYTHON=...' >&2; exit 1; }
	@echo 'Creating .venv ...'
	@"$(PYTHON)" -m venv .venv || { rm -rf .venv; exit 1; }

# The build backend is installed beside the project instead of into a build environment of its own:
# pinned like the rest, and quick.
.venv/demo.stamp: pyproject.toml constraints.txt | $(venv)
	@echo 'Installing gprochat and its transports into .venv ...'
	@$(install) --upgrade pip
	@$(install) $(build)
	@$(install) --no-build-isolation --editable '.[all]'
	@touch $@

.venv/dev.stamp: .venv/demo.stamp
	@echo 'Installing the development tools into .venv ...'
	@$(install) --group dev
	@touch $@

# No single version of it can be pinned: each is built for some versions of Python only.
.venv/fuzz.stamp: .venv/dev.stamp
	@echo 'Installing atheris into .venv ...'
	@$(install) 'atheris>=3,<4'
	@touch $@

.venv/mutants.stamp: .venv/dev.stamp
	@echo 'Installing mutmut into .venv ...'
	@$(install) --group mutants
	@touch $@

bench: | $(venv)
	@$(venv) -m benchmarks

bench-quick: | $(venv)
	@$(venv) -m benchmarks --quick

soak: .venv/dev.stamp
	@$(venv) -m tests.soak

constraints:
	@test -n "$(PYTHON)" || { echo 'No Python of 3.11 or newer found; name one: make PYTHON=...' >&2; exit 1; }
	@rm -rf .venv && "$(PYTHON)" -m venv .venv
	@$(pip) install --upgrade pip setuptools $(build)
	@$(pip) install --no-build-isolation --editable '.[all]' --group dev --group mutants
	@{ sed -n '/^#/p' constraints.txt; $(pip) freeze --all --exclude-editable; } > .venv/constraints.txt
	@mv .venv/constraints.txt constraints.txt
	@touch .venv/demo.stamp .venv/dev.stamp .venv/mutants.stamp

clean:
	rm -rf .venv .nox .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		build dist htmlcov mutants
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
