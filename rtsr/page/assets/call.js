// The page of a call, with a microphone to try it.
import { $, AGAIN_MS, View, colour, kilohertz, say } from "./view.js";

let peer = null, call = null, microphone = null;
// Ends the call that is being made; null while none is.
let calling = null;
// While the browser will not play by itself.
let isSilent = false;

// What browsers say of a connection that ends without a word (RFC 6455, 7.1.5).
const BROKEN = 1006;
const NO_MICROPHONE = "There is no microphone, or the browser may not use it; allow it and call again.";
const MICROPHONE = {
  NotAllowedError: NO_MICROPHONE, NotFoundError: NO_MICROPHONE,
  NotReadableError: "The microphone cannot be opened; another program may have it.",
};

const view = new View({
  sentence: (now) =>
    (now.codec_in ? `${now.codec_in} comes in and ends at ${kilohertz(now.cutoff_hz)}` : "Nothing comes in yet")
      + `; ${now.codec_out} goes out.`,
  facts: (now) => [
    ["Packets lost", `${now.lost} (${(100 * now.lost_share).toFixed(1)} %)`],
    ["Packets too late", now.late],
    ["Packets sent", now.sent],
    ["Keys pressed", now.keys],
    ["Silence not sent", now.unsent_seconds === null ? "all of it is sent" : `${now.unsent_seconds} s`],
    ["Jitter", `${now.jitter_ms} ms`],
    ["Sound made up", `${now.concealed_seconds} s`],
    ["Without the new band", `${now.fallback_seconds} s`],
    ["Deadlines missed", now.missed],
    ["Model step, median", `${now.step_p50_ms} ms`],
    ["Model step, 1 in 1000", `${now.step_p999_ms} ms`],
    ...colour(now),
    ["Calls", `${now.calls} of ${now.capacity}`],
    ["Duration", `${Math.floor(now.seconds)} s`],
  ],
  onClose: ({ code }) => {
    // Whose connection breaks may still be heard, for the sound goes another way.
    if (code === BROKEN) setTimeout(look, AGAIN_MS, call);
    else end("The call was ended by the server.", "bad");
  },
});

function look(name) {
  if (name && name === call) view.open(`/calls/${name}/view`);
}

async function begin() {
  const own = calling = new AbortController();
  isSilent = false;
  $("call").textContent = "Hang up";
  $("codec").disabled = true;
  try {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give a microphone only to pages over HTTPS or of this machine; see rtsr call web --certificate.");
    }
    say("Asking for the microphone…");
    const heard = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
    });
    // Given up meanwhile.
    if (own.signal.aborted) { silence(heard); return; }
    microphone = heard;
    const [voice] = microphone.getAudioTracks();
    // Unplugged, or no longer allowed.
    voice.addEventListener("ended", () => end("The microphone is gone, and the call is over.", "bad"));
    say("Calling…");
    const made = peer = new RTCPeerConnection();
    const sends = peer.addTransceiver(voice, { direction: "sendonly" });
    const hears = peer.addTransceiver("audio", { direction: "recvonly" });
    prefer(sends, $("codec").value);
    prefer(hears, "opus");
    peer.ontrack = (event) => {
      event.receiver.jitterBufferTarget = 0;
      $("out").srcObject = new MediaStream([event.track]);
      $("out").play().catch(() => { isSilent = true; if (peer && peer.connectionState === "connected") on(); });
    };
    peer.onconnectionstatechange = () => {
      const state = peer && peer.connectionState;
      if (state === "failed") end("The connection was lost.", "bad");
      // It may come back, as where a telephone changes its network.
      if (state === "disconnected") say("Nothing comes through any more; waiting.", "bad");
      if (state === "connected") on();
    };
    await made.setLocalDescription(await made.createOffer());
    await gathered(made);
    own.signal.throwIfAborted();
    const answer = await ask({ type: "offer", sdp: made.localDescription.sdp });
    // The server has made the call all the same, and would keep its place for it.
    if (own.signal.aborted) { hangUp(answer.call); return; }
    call = answer.call;
    await made.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    own.signal.throwIfAborted();
    calling = null;
    look(call);
  } catch (error) {
    // Whoever gives up has ended it already.
    if (!own.signal.aborted) end(MICROPHONE[error.name] || error.message, "bad");
  }
}

function on() {
  say(isSilent ? "The call is on. Press play to hear it." : "The call is on.", isSilent ? "bad" : "good");
}

async function ask(offer) {
  const response = await fetch("/calls", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(offer),
  }).catch(() => { throw new Error("The server does not answer; is rtsr call web still running?"); });
  // A proxy's errors are no JSON.
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The server does not take the call (HTTP ${response.status}).`);
  return answer;
}

function end(sentence = "The call is over.", kind = "") {
  if (call) hangUp(call);
  if (calling) calling.abort();
  view.close();
  if (peer) { peer.onconnectionstatechange = null; peer.close(); }
  if (microphone) silence(microphone);
  peer = call = microphone = calling = null;
  // What has ended would be shown as if it could be played on.
  $("out").srcObject = null;
  // A knob that had the focus has lost it.
  if ($(view.focused)?.disabled) $("call").focus();
  view.focused = "";
  $("codec").disabled = false;
  $("call").textContent = "Call";
  say(sentence, kind);
}

function hangUp(name) {
  fetch(`/calls/${name}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

function silence(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function prefer(transceiver, name) {
  const all = RTCRtpReceiver.getCapabilities("audio").codecs;
  const named = (kind) => all.filter((codec) => codec.mimeType.toLowerCase() === `audio/${kind}`.toLowerCase());
  const wanted = named(name);
  // Keys go beside every codec.
  if (wanted.length) transceiver.setCodecPreferences([...wanted, ...named("telephone-event")]);
}

function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    connection.addEventListener("icegatheringstatechange", () => {
      if (connection.iceGatheringState === "complete") done();
    });
  });
}

$("call").addEventListener("click", ({ detail }) => {
  // Of a double click the second half does not take back what the first has begun.
  if (detail > 1) return;
  if (calling) end("The call was given up.");
  else if (peer) end();
  else begin();
});
$("out").addEventListener("playing", () => {
  isSilent = false;
  if (peer && peer.connectionState === "connected") on();
});
addEventListener("pagehide", () => { if (peer || calling) end(); });
