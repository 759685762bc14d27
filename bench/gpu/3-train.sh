#!/usr/bin/env bash
# bench/gpu/3-train.sh PACK OUT [MINUTES]: train, and bring back slim.pt and the log in parts of
# at most 16 MiB. Launches and milliseconds per step go to OUT/steps.txt first.
source "$(dirname "$0")/common.sh"
[ $# -ge 2 ] || fail "Usage: bench/gpu/3-train.sh .gpu-pack/3-train.tar OUT [MINUTES]"
OUT=$2
mkdir -p "$OUT"
unpack "$1" train
DEVICE=${DEVICE:-cuda}
if [ "${STEPS:-1}" = 1 ]; then
  timeout 60 "$PYTHON" examples/train_step_cost.py --stage refinement --device "$DEVICE" \
    --steps "${TIMED_STEPS:-20}" --batch "${BATCH:-24}" > "$OUT/steps.txt" || true
fi
bring_back() {
  for file in slim.pt log.jsonl; do
    [ ! -f "$WORK/run/$file" ] || split -b 16M -d "$WORK/run/$file" "$OUT/$file."
  done
  [ ! -f "$WORK/run/slim.pt" ] || echo "cat slim.pt.* > slim.pt puts it together."
}
trap bring_back EXIT
rtsr train "$WORK/audio" --out "$WORK/run" --config "$WORK/train.toml" --device "$DEVICE" \
  --grow-from "$WORK/start.pt" --minutes "${3:-6.5}" --workers "$(nproc)" --slim
