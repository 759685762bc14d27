#!/bin/sh
# What a stream hears: the sound of any program, through rtsr, into OBS (PipeWire or PulseAudio).
#
#   examples/monitor_in_obs.sh               options go to `rtsr live`, for example --midi desk
#                                            (with PulseAudio to `rtsr pipe`, as --colour me.json)
#   HEAR=1 examples/monitor_in_obs.sh        and to your own headphones as well
#
# It makes two virtual cables and takes them away when it ends (Ctrl-C):
#   "to-rtsr"     choose it as output of the program (browser, softphone, game)
#   "from-rtsr"   in OBS: Sources, +, Audio Output Capture (PulseAudio), "Monitor of from-rtsr"
# In a call, choose "Monitor of from-rtsr" as microphone where it is yours that is to be enhanced.
#
# With a picture from a camera, give OBS the latency that the screen shows: right click on the
# source in the mixer, Advanced Audio Properties, Sync Offset, for the *other* sources.
set -eu

for program in pactl rtsr; do
    command -v "$program" >/dev/null || {
        echo "monitor_in_obs: there is no '$program' here; install it first." >&2
        exit 2
    }
done
server=$(pactl info 2>&1) || {
    echo "monitor_in_obs: no sound server answers pactl: $server" >&2
    exit 2
}

modules=
# Without this an interrupted shell would leave the cables behind.
trap 'for module in $modules; do pactl unload-module "$module"; done' EXIT
trap 'exit 130' INT TERM

cable() {
    modules="$(pactl load-module module-null-sink "sink_name=$1" rate=48000 \
        "sink_properties=device.description=$2") $modules"
}
cable to_rtsr to-rtsr
cable from_rtsr from-rtsr
if [ -n "${HEAR:-}" ]; then
    modules="$(pactl load-module module-loopback source=from_rtsr.monitor latency_msec=20) $modules"
fi

case $server in
*PipeWire*)
    # PipeWire's cables are JACK devices too: all of it in one cycle of 128 frames.
    pw-jack -p 128 rtsr live --input to-rtsr --output from-rtsr "$@"
    ;;
*)
    # PulseAudio itself is late (see docs/live.md); for a stream a pipe is as good and needs no JACK.
    echo "to-rtsr -> rtsr pipe -> from-rtsr, Ctrl-C ends it" >&2
    parec -d to_rtsr.monitor --latency-msec=20 --rate=48000 --channels=1 --format=s16le |
        rtsr pipe --rate 48000 "$@" |
        pacat -d from_rtsr --latency-msec=20 --rate=48000 --channels=1 --format=s16le
    ;;
esac
