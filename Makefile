# Everything from nothing: each target makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: help demo test test-engine test-all test-gpu-stub test-triton gpu-pack gpu-rehearse bench smoke soak lint docs dist clean
.DEFAULT_GOAL := help

## help: this list
help:
	@awk -F': ' '/^## /{printf "  make %-14s %s\n", substr($$1, 4), $$2}' $(MAKEFILE_LIST)

## demo: stream a packaged 8 kHz voice through the model and show what it did
demo: $(VENV)/.demo
	$(BIN)/rtsr demo demo

## test: every room's tests but the slow ones, in a few minutes
# What keeps time with a sound server, a browser or a telephone is marked `clocked` and runs apart,
# for most of it waits: three side by side (JACK has room for eight servers, and a test may have
# two), and one by one what compares or times sound as it plays. The rest shares two cores.
SHARED := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests
test: $(VENV)/.dev
	$(SHARED) -m "not clocked and not slow"

## test-engine: what notices a fault in the engine and its kernels, within a minute
# By planted faults: each of some sixty single changes of a line made one of these fail.
ENGINE := $(addprefix tests/kernels/test_,bandwidth_streams.py bandwidth_thresholds.py crossover.py cutoffs.py \
  decibels.py equaliser.py limiter.py many_streams.py network_rows.py ports.py replicate_rows.py) \
  tests/rtsr/bandwidth tests/rtsr/engine tests/rtsr/batch/test_shedding.py tests/rtsr/live/worker/test_chain_preroll.py \
  tests/rtsr/batch/test_batch.py::test_a_stalled_stream_keeps_its_state tests/rtsr/batch/test_many.py \
  $(addprefix tests/rtsr/test_,controls.py integers_and_layouts.py one_thread.py packets.py)
test-engine: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ENGINE) -m "not slow"

## test-all: the above, the slow ones, and live sound and calls with real clients
# The first line is `make test` with the slow ones: what they share is imported and made once.
# What keeps time fails where a machine stands still for a second, which shared ones do. It has a
# second try, and is listed as RERUN if that is needed: more than a rare one is a defect.
RETRIED := --reruns 1 -r fER
test-all: $(VENV)/.dev
	$(SHARED) -m "not clocked"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal $(RETRIED) tests -m "clocked and not alone"
	$(BIN)/python -m pytest $(RETRIED) tests -m alone

## test-gpu-stub: the CUDA provider on stand-ins for NVIDIA's libraries, without a GPU
# ONNX Runtime's real CUDA provider on stand-ins for NVIDIA's libraries. Its package must not lie
# beside the one for CPUs, so it has a folder of its own.
GPU_RUNTIME := .gpu-runtime
test-gpu-stub: $(VENV)/.dev $(GPU_RUNTIME)/.installed
	PYTHONPATH=$(CURDIR)/$(GPU_RUNTIME) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/gpu_stub

## test-triton: a model repository in a real Triton server, with real clients
# The server comes with nvidia-pytriton, which says that it is for Python code on Triton but has all
# of it. Its Python backend is older than numpy 2, so it has an environment of its own, and starts
# the stub that lies beside it: the one for that environment's Python.
TRITON_RUNTIME := .triton-runtime
TRITON_SERVER := $(TRITON_RUNTIME)/lib/python3.*/site-packages/pytriton/tritonserver
test-triton: $(VENV)/.dev $(TRITON_RUNTIME)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/export/test_triton_server.py

## gpu-pack: what a GPU machine without a network needs (GPU_PACK="...", see bench/gpu/README.md)
# What a GPU machine without a network needs, see bench/gpu/README.md:
# make gpu-pack GPU_PACK="--python 3.12 --architecture 90 --recordings DIR --start start.pt"
GPU_PACK ?=
gpu-pack: $(VENV)/.dev
	$(BIN)/python bench/gpu/pack.py $(GPU_PACK)

## gpu-rehearse: the scripts for a GPU machine, on this one (RECORDINGS="DIR ...")
# The three scripts from beginning to end on this machine, within a minute or two each.
gpu-rehearse: $(VENV)/.dev $(GPU_RUNTIME)/.installed
	VENV=$(abspath $(VENV)) bash bench/gpu/rehearse.sh $(RECORDINGS)

## bench: time steps, kernels and the start of a process
bench: $(VENV)/.dev
	$(BIN)/python -m pytest bench -q --benchmark-only --benchmark-quiet

## smoke: run every benchmark once, as short as it gets
# Both benchmarks once, as short as they get: that they run, not how fast.
smoke: $(VENV)/.dev
	$(BIN)/python -m pytest bench --benchmark-disable -q
	$(BIN)/rtsr bench speed --provider cpu --hops 1 --streams 1 --repetitions 1 --seconds 0.02 --most-streams 1

## soak: run the live engine on a JACK server for ten minutes (SOAK="--minutes 60")
# The live engine on a JACK server; `make soak SOAK="--minutes 60 --gil-hog --load 2"`.
SOAK ?= --minutes 10
soak: $(VENV)/.dev
	$(BIN)/rtsr bench soak $(SOAK)

## lint: style, types and the direction of imports
# Types are checked against the pinned packages, which need Python 3.11.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 11))' || $(BIN)/mypy

## docs: build the documentation into build/site; a warning is an error
# Not --quiet, which would silence warnings before they are counted.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

## dist: build and check the source distribution and the wheel, in dist
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

## clean: remove everything that the other targets have made
clean:
	rm -rf $(VENV) $(GPU_RUNTIME) $(TRITON_RUNTIME) build dist *.egg-info demo .pytest_cache .mypy_cache .ruff_cache .benchmarks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[cpu,eval]"
	touch $@

# For its example's test what that imports, 16 MB: of what is here already Pipecat wants other versions, and
# of what it brings for services of others nothing is needed.
PIPECAT := pipecat-ai aiohappyeyeballs aiohttp aiosignal attrs docstring_parser frozenlist loguru loudness \
  multidict propcache sentencex wait_for2 yarl "audioop-lts; python_version >= '3.13'"

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	# For its example's test, without the type stubs that it brings for a package of others.
	$(INSTALL) --no-deps livekit aiofiles
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 11))' || $(INSTALL) --no-deps $(PIPECAT)
	touch $@

$(GPU_RUNTIME)/.installed: constraints.txt $(BIN)/python
	rm -rf $(GPU_RUNTIME)
	$(INSTALL) --no-deps --target $(GPU_RUNTIME) onnxruntime-gpu
	touch $@

$(TRITON_RUNTIME)/.installed: constraints.txt $(VENV)/.dev
	rm -rf $(TRITON_RUNTIME)
	$(BIN)/python -m venv --without-pip $(TRITON_RUNTIME)
	$(BIN)/python -m pip --python $(TRITON_RUNTIME)/bin/python install --quiet --no-deps \
	  nvidia-pytriton==0.7.0 "numpy<2" $$($(BIN)/python -m pip freeze | grep ^onnxruntime==)
	cp $(TRITON_SERVER)/python_backend_stubs/$$($(BIN)/python -c \
	  'import sys; print("%d.%d" % sys.version_info[:2])')/* $(TRITON_SERVER)/backends/python
	touch $@
