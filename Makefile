# Everything from nothing: each target makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: demo test test-gpu-stub gpu-pack gpu-rehearse bench smoke soak lint clean

demo: $(VENV)/.demo
	$(BIN)/rtsr demo demo

# What keeps time with a sound server runs alone; the rest shares two cores.
CLOCKED := tests/rtsr/live tests/rtsr/call tests/bench/soak
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(CLOCKED:%=--ignore=%)
	$(BIN)/python -m pytest $(CLOCKED)

# ONNX Runtime's real CUDA provider on stand-ins for NVIDIA's libraries. Its package must not lie
# beside the one for CPUs, so it has a folder of its own.
GPU_RUNTIME := .gpu-runtime
test-gpu-stub: $(VENV)/.dev $(GPU_RUNTIME)/.installed
	PYTHONPATH=$(CURDIR)/$(GPU_RUNTIME) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/gpu_stub

# What a GPU machine without a network needs, see bench/gpu/README.md:
# make gpu-pack GPU_PACK="--python 3.12 --architecture 90 --recordings DIR --start start.pt"
GPU_PACK ?=
gpu-pack: $(VENV)/.dev
	$(BIN)/python bench/gpu/pack.py $(GPU_PACK)

# The three scripts from beginning to end on this machine, within a minute or two each.
gpu-rehearse: $(VENV)/.dev $(GPU_RUNTIME)/.installed
	VENV=$(abspath $(VENV)) bash bench/gpu/rehearse.sh $(RECORDINGS)

bench: $(VENV)/.dev
	$(BIN)/rtsr bench calls

# Both benchmarks once, as short as they get: that they run, not how fast.
smoke: $(VENV)/.dev
	$(BIN)/python -m pytest bench --benchmark-disable -q
	$(BIN)/rtsr bench speed --provider cpu --hops 1 --streams 1 --repetitions 1 --seconds 0.02 --most-streams 1

# The live engine on a JACK server; `make soak SOAK="--minutes 60 --gil-hog --load 2"`.
SOAK ?= --minutes 10
soak: $(VENV)/.dev
	$(BIN)/rtsr bench soak $(SOAK)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(GPU_RUNTIME) build *.egg-info demo .pytest_cache .mypy_cache .ruff_cache .benchmarks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[cpu,eval]"
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	# For its example's test, without the type stubs that it brings for a package of others.
	$(INSTALL) --no-deps livekit aiofiles
	touch $@

$(GPU_RUNTIME)/.installed: constraints.txt $(BIN)/python
	rm -rf $(GPU_RUNTIME)
	$(INSTALL) --no-deps --target $(GPU_RUNTIME) onnxruntime-gpu
	touch $@
