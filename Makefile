# Everything here needs python3 (3.10 or newer) and make, and nothing else: what is missing goes into $(VENV).
#
#   make train         train on the bundled digits and print the test accuracy
#   make test          the test suite, without torch
#   make parity        the tests against PyTorch (installs it)
#   make test-cuda     the tests of the CUDA kernels, which need no GPU (installs the CUDA compiler, about 1 GB)
#   make test-cuda12   the same with the compiler of CUDA 12 (another 0.6 GB)
#   make test-gpu      networks, training and captured steps on a GPU; skipped, with the reason, where none works
#   make lint types    ruff; mypy
#   make bench-quick   a short side-by-side comparison with PyTorch
#   make locked        install everything that CI needs from requirements/ci.txt, checked by hash
#   make lock          write requirements/ci.txt anew: the newest version of everything
#   make audit         look for known vulnerabilities of the locked packages
#   make test-minimal  the tests with the oldest version of everything, on MINIMAL (Python 3.10)
#   make test-newest   the tests with the newest version of everything, on NEWEST
#   make test-cpus     the tests of the kernels as compiled for other CPUs: AVX2, SSE2, and x86-64 without a name
#   make wheel         build the wheel, install it elsewhere, and train from it
#   make clean         remove $(VENV) and what was built
#
# ARGS is handed on: make train ARGS="--epochs 3", make test ARGS="-k conv -x".

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0 torchvision==0.28.0 onnxruntime==1.32.0 onnxscript==0.7.2 scikit-learn
MINIMAL ?= python3.10
NEWEST ?= python3
ARGS   ?=
TESTCUDA ?= testcuda

BIN := $(VENV)/bin
# One process a core, but not many: each loads or compiles the kernels that it needs.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: train test parity test-cuda test-cuda12 test-cuda-here test-gpu test-gpu-here lint types asv-check bench-quick wheel clean
.PHONY: locked lock audit test-minimal test-newest test-cpus test-versions
.DELETE_ON_ERROR:

train: $(VENV)/.core
	$(BIN)/numbanet train --data digits $(ARGS)

test: $(VENV)/.test
	$(PYTEST) $(ARGS)

parity: $(VENV)/.test $(VENV)/.torch
	$(PYTEST) tests/parity $(ARGS)

# In virtual environments of their own: numba-cuda takes the place of Numba's built-in CUDA side.
test-cuda test-gpu:
	@$(MAKE) --no-print-directory VENV=$(VENV)-cuda $@-here

test-cuda12:
	@$(MAKE) --no-print-directory VENV=$(VENV)-cuda12 TESTCUDA=testcuda12 test-cuda-here

# Neighbours in a file compile the same kernels: they stay with one process until another has nothing left.
CUDA_TESTS ?= tests/cuda
test-cuda-here: $(VENV)/.$(TESTCUDA)
	$(PYTEST) --dist worksteal $(CUDA_TESTS) $(ARGS)

test-gpu-here: $(VENV)/.$(TESTCUDA)
	$(BIN)/python -m pytest tests/models tests/train tests/capturing tests/cuda/test_other_libraries.py -k "cuda or cupy or torch" $(ARGS)

# ------------------------------------------------------------------------------------------- versions and supply

# All stamps at once; torch is not in the lock: which of its builds pip finds differs from machine to machine.
locked: | $(BIN)/python
	@echo "Installing requirements/ci.txt into $(VENV), checked by hash"
	@$(PIP) --require-hashes --requirement requirements/ci.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(foreach set,core test lint bench,$(VENV)/.$(set))

lock: | $(BIN)/python
	@$(PIP) uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-package numbanet \
	    --no-header --upgrade --extra test --extra lint --extra bench \
	    pyproject.toml requirements/ci.in --output-file requirements/ci.txt

audit: | $(BIN)/python
	@$(PIP) pip-audit
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements/ci.txt

test-minimal:
	@$(MAKE) --no-print-directory VENV=$(VENV)-minimal PYTHON=$(MINIMAL) RESOLUTION=lowest-direct test-versions

test-newest:
	@$(MAKE) --no-print-directory VENV=$(VENV)-newest PYTHON=$(NEWEST) RESOLUTION=highest test-versions

test-versions: | $(BIN)/python
	@$(PIP) uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --resolution $(RESOLUTION) --editable ".[test]"
	$(PYTEST) $(ARGS)

# Numba compiles for the CPU that it is told: what runs on the machine at hand, with the fallbacks of older ones.
HASWELL := +sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt
CPU_TESTS ?= tests/cpu tests/ops
test-cpus: $(VENV)/.test
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=$(HASWELL) $(PYTEST) $(CPU_TESTS) $(ARGS)
	NUMBA_CPU_NAME=x86-64 NUMBA_CPU_FEATURES=+sse,+sse2 $(PYTEST) $(CPU_TESTS) $(ARGS)
	NUMBA_CPU_NAME=generic $(PYTEST) $(CPU_TESTS) $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .

types: $(VENV)/.lint $(VENV)/.core
	$(BIN)/mypy

asv-check: $(VENV)/.bench $(VENV)/.torch
	$(BIN)/asv check -E existing

bench-quick: $(VENV)/.bench $(VENV)/.torch
	$(BIN)/python -m benchmarks.compare --quick $(ARGS)

wheel: $(VENV)/.core
	rm -rf dist
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	.ci/try-wheel $(BIN)/python dist/*.whl

clean:
	rm -rf $(VENV) $(VENV)-cuda $(VENV)-cuda12 build dist .asv

# One stamp for each set of requirements; only a newer pyproject.toml installs again.
$(VENV)/.core: pyproject.toml | $(BIN)/python
	@echo "Installing numbanet and its requirements into $(VENV) (once; about 300 MB)"
	@$(PIP) --editable . && touch $@

$(VENV)/.torch: | $(BIN)/python
	@echo "Installing $(TORCH) into $(VENV) (once)"
	@$(PIP) $(TORCH) && touch $@

$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "Installing numbanet and its requirements for '$*' into $(VENV) (once)"
	@$(PIP) --editable ".[$*]" && touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "make: no '$(PYTHON)' on this machine: install Python 3.10 or newer," \
	         "or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "make: numbanet needs Python 3.10 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1):" \
	         "name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "make: '$(PYTHON)' comes without the venv module: install it" \
	         "(Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
