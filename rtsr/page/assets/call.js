// The page of a call, with a microphone to try it.
import { $, AGAIN_MS, View, kilohertz, say } from "./view.js";

let peer = null, call = null, microphone = null;
// While it is called, and while the browser will not play by itself.
let isCalling = false, isSilent = false;

// What browsers say of a connection that ends without a word (RFC 6455, 7.1.5).
const BROKEN = 1006;
const NO_MICROPHONE = "There is no microphone, or the browser may not use it; allow it and call again.";
const MICROPHONE = {
  NotAllowedError: NO_MICROPHONE, NotFoundError: NO_MICROPHONE,
  NotReadableError: "The microphone cannot be opened; another program may have it.",
};

const view = new View({
  sentence: (now) =>
    `${now.codec_in || "Nothing"} comes in and ends at ${kilohertz(now.cutoff_hz)}; ${now.codec_out} goes out.`,
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
  // A button that is disabled would lose the focus.
  isCalling = true;
  isSilent = false;
  $("call").setAttribute("aria-disabled", "true");
  $("codec").disabled = true;
  try {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give a microphone only to pages over HTTPS or of this machine; see rtsr call web --certificate.");
    }
    say("Asking for the microphone…");
    microphone = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
    });
    say("Calling…");
    peer = new RTCPeerConnection();
    const sends = peer.addTransceiver(microphone.getAudioTracks()[0], { direction: "sendonly" });
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
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const answer = await ask({ type: "offer", sdp: peer.localDescription.sdp });
    call = answer.call;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    look(call);
    $("call").textContent = "Hang up";
  } catch (error) {
    end(MICROPHONE[error.name] || error.message, "bad");
  }
  isCalling = false;
  $("call").removeAttribute("aria-disabled");
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
  if (call) fetch(`/calls/${call}`, { method: "DELETE", keepalive: true }).catch(() => {});
  view.close();
  if (peer) { peer.onconnectionstatechange = null; peer.close(); }
  if (microphone) microphone.getTracks().forEach((track) => track.stop());
  peer = call = microphone = null;
  $("codec").disabled = false;
  $("call").textContent = "Call";
  say(sentence, kind);
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

$("call").addEventListener("click", () => { if (!isCalling) (peer ? end() : begin()); });
$("out").addEventListener("playing", () => {
  isSilent = false;
  if (peer && peer.connectionState === "connected") on();
});
addEventListener("pagehide", () => { if (peer) end(); });
