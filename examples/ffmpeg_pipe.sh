#!/bin/sh
# Anything that ffmpeg reads (a file, a stream, a sound card) through rtsr, into anything it writes.
#
#   examples/ffmpeg_pipe.sh call.amr call-48k.opus
#   examples/ffmpeg_pipe.sh http://radio.example/stream radio.flac
#   RATE=16000 CHANNELS=2 MODEL=replicate examples/ffmpeg_pipe.sh in.mp3 out.flac
#
# Sound passes in pieces of 10 ms as it comes, so live sources work too. --drop-latency makes the
# output line up with the input to the sample; leave it out (KEEP_LATENCY=1) for live sources,
# where there is nothing to line up with. Ctrl-C ends a recording. A file that is there already is
# replaced when the new one is whole.
set -eu

if [ $# -ne 2 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
if [ "$1" -ef "$2" ]; then
    echo "ffmpeg_pipe: '$1' and '$2' are the same file; give the output another name." >&2
    exit 2
fi
rate=${RATE:-8000}
channels=${CHANNELS:-1}
[ -n "${KEEP_LATENCY:-}" ] && align= || align=--drop-latency

# The exit code of a pipe is the last program's: an input that ffmpeg cannot read must not pass for
# an empty one.
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT
stopped=
trap 'stopped=1' INT

out=$2
if [ -f "$2" ]; then
    # Where a link leads to, so that it stays one.
    kept=$(readlink -f "$2")
    out=$(dirname "$kept")/incomplete-$$-$(basename "$kept")
fi

{
    # Without -flush_packets 1 ffmpeg would collect a quarter of a second before it writes.
    ffmpeg -nostdin -v error -i "$1" -vn -f f32le -ac "$channels" -ar "$rate" -flush_packets 1 - ||
        echo input >>"$failed"
} | {
    # $align is one word or none.
    rtsr pipe --rate "$rate" --channels "$channels" --format f32 --model "${MODEL:-small}" $align ||
        echo rtsr >>"$failed"
} | ffmpeg -nostdin -v error -y -f f32le -ar 48000 -ac "$channels" -i - "$out" ||
    echo output >>"$failed"

if [ -z "$stopped" ] && [ -s "$failed" ]; then
    echo "ffmpeg_pipe: '$out' is not complete, see above." >&2
    exit 1
fi
[ "$out" = "$2" ] || mv -f "$out" "$kept"
[ -z "$stopped" ] || exit 130
