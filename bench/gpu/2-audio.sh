#!/usr/bin/env bash
# bench/gpu/2-audio.sh PACK: the first part of the recordings, which has a transfer of its own.
source "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || fail "Usage: bench/gpu/2-audio.sh .gpu-pack/2-audio.tar"
unpack "$1" audio
echo "$(find "$WORK/audio" -type f | wc -l) recordings lie in $WORK/audio."
