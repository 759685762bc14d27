#!/usr/bin/env bash
# bench/gpu/rehearse.sh [RECORDINGS]: packs and runs the three scripts on this machine, with
# stand-ins for NVIDIA's libraries and training on the CPU. Figures mean nothing; that it runs does.
set -euo pipefail
cd "$(dirname "$0")/../.."
BIN=${VENV:-.venv}/bin
HERE=$("$BIN/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
WORKSHOP=$(mktemp -d)
trap 'rm -rf "$WORKSHOP"' EXIT
RECORDINGS=${1:-}
if [ -z "$RECORDINGS" ]; then
  RECORDINGS=$WORKSHOP/recordings
  "$BIN/python" bench/gpu/rehearsal_recordings.py "$RECORDINGS"
fi
"$BIN/rtsr" export small "$WORKSHOP/start.pt"
"$BIN/python" bench/gpu/pack.py --python "$HERE" --architecture 90 --most-mib "${MOST_MIB:-55}" \
  --recordings "$RECORDINGS" --start "$WORKSHOP/start.pt" --out "$WORKSHOP/pack"
export PYTHON=$PWD/$BIN/python WORK=.gpu-work
[[ $BIN = /* ]] && PYTHON=$BIN/python
rm -rf "$WORK"
mkdir -p "$WORK"
cat "$WORKSHOP"/pack/1-evidence.tar.xz* > "$WORKSHOP/whole.tar.xz"
tar -xf "$WORKSHOP/whole.tar.xz" -C "$WORK" site
"$PYTHON" tests/gpu_stub/build_stand_ins.py \
  "$WORK/site/onnxruntime/capi/libonnxruntime_providers_cuda.so" "$WORKSHOP/stand-ins"
LD_LIBRARY_PATH=$WORKSHOP/stand-ins bash bench/gpu/1-evidence.sh \
  "$WORKSHOP/pack/1-evidence.tar.xz" "$WORKSHOP/out" "${SECONDS_OF_EVIDENCE:-40}"
# Whether they find what they need and run; on stand-ins they cannot pass.
grep -E "test_real_gpu.py::.* (PASSED|FAILED)" "$WORKSHOP/out/gpu-tests.txt" || {
  cat "$WORKSHOP/out/gpu-tests.txt"
  exit 1
}
bash bench/gpu/2-audio.sh "$WORKSHOP/pack/2-audio.tar"
DEVICE=cpu BATCH=2 TIMED_STEPS=1 bash bench/gpu/3-train.sh \
  "$WORKSHOP/pack/3-train.tar" "$WORKSHOP/out" "${MINUTES:-0.5}"
cat "$WORKSHOP"/out/slim.pt.* > "$WORKSHOP/slim.pt"
"$BIN/rtsr" export "$WORKSHOP/slim.pt" "$WORKSHOP/tuned.onnx"
cat "$WORKSHOP/out/steps.txt"
ls -l "$WORKSHOP/out"
echo "The rehearsal is over: evidence, slim checkpoint and log came back."
