#!/usr/bin/env bash
# bench/gpu/1-evidence.sh PACK OUT [SECONDS]: parity, latency and streams into OUT/evidence.json
# and .html. What is cut off has left what came before. Then the tests that only a GPU can answer,
# into OUT/gpu-tests.txt.
source "$(dirname "$0")/common.sh"
[ $# -ge 2 ] || fail "Usage: bench/gpu/1-evidence.sh .gpu-pack/1-evidence.tar.xz OUT [SECONDS]"
OUT=$2
mkdir -p "$OUT"
unpack "$1" evidence
nvidia-smi > "$OUT/nvidia-smi.txt" 2>&1 || true
rtsr bench speed --provider "${PROVIDER:-cuda}" --evidence "$OUT/evidence.json" --budget "${3:-230}" \
  --model "$WORK/models/small.onnx,$WORK/models/base.onnx"
# Interrupted and not killed, pytest says what it has found until then.
timeout -s INT -k 10 60 "$PYTHON" -m pytest -v -m gpu -p no:cacheprovider \
  tests/rtsr/runtime/test_real_gpu.py > "$OUT/gpu-tests.txt" 2>&1 || true
tail -n 1 "$OUT/gpu-tests.txt"
