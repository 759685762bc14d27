# Read by the scripts beside it. They run in the root of the source tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}
WORK=${WORK:-.gpu-work}
[[ $WORK = /* ]] || WORK=$PWD/$WORK
fail() { echo "$*" >&2; exit 2; }

# unpack PACK PART: only what was packed as that part, for this Python.
unpack() {
  command -v "$PYTHON" > /dev/null || fail "There is no Python $PYTHON; set PYTHON to the right one."
  local parts=("$1")
  [ -f "$1" ] || parts=("$1".[0-9][0-9])
  [ -f "${parts[0]}" ] ||
    fail "There is no pack $1; make gpu-pack writes it on a machine with a network."
  mkdir -p "$WORK"
  cat "${parts[@]}" > "$WORK/pack.tar"
  # What an earlier pack has left must not speak for this one.
  rm -f "$WORK/pack.json"
  local broken=0
  tar -xf "$WORK/pack.tar" -C "$WORK" 2> /dev/null && [ -f "$WORK/pack.json" ] || broken=$?
  rm "$WORK/pack.tar"
  [ "$broken" = 0 ] ||
    fail "The pack $1 is damaged or lacks a part (found: ${parts[*]##*/}); bring it over again."
  "$PYTHON" - "$WORK/pack.json" "$2" <<'EOF'
import json, sys
facts = json.load(open(sys.argv[1]))
here = f"{sys.version_info[0]}.{sys.version_info[1]}"
said = ""
if facts["part"] != sys.argv[2]:
    said = f"That is the pack '{facts['part']}'; this script wants '{sys.argv[2]}'."
elif facts["python"] != here:
    said = (f"This pack is for Python {facts['python']} and this is {here}; pack anew with "
            f"make gpu-pack GPU_PACK='--python {here}', or set PYTHON to the right one.")
if said:
    print(said, file=sys.stderr)
    sys.exit(2)
EOF
}

# The packages of the machine come after those of the pack: its ONNX Runtime may be one for CPUs.
export PYTHONPATH="$WORK/site:$PWD:$PWD/kernels:$PWD/export:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}"
export ORT_DISABLE_TELEMETRY=1
rtsr() { "$PYTHON" -m rtsr "$@"; }
