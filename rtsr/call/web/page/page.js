// The page of a call. Everything that it shows comes from one WebSocket; every knob goes back there.
const $ = (id) => document.getElementById(id);
const words = {
  wet: "Amount", level_db: "Level", tilt_db: "Brightness", ceiling_hz: "Ends at",
  gate_dbfs: "Silent below", bypass: "Bypass",
};
let peer = null, call = null, socket = null, microphone = null, plot = null, about = null;
// The newest message, for whoever looks with the browser's console.
globalThis.lookedAt = null;

function say(sentence, kind = "") {
  $("state").textContent = sentence;
  $("state").className = kind;
}

async function begin() {
  $("call").disabled = true;
  try {
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
      $("out").play().catch(() => say("Press play to hear it.", "bad"));
    };
    peer.onconnectionstatechange = () => {
      if (peer && ["failed", "disconnected"].includes(peer.connectionState)) end("The connection was lost.", "bad");
      if (peer && peer.connectionState === "connected") say("The call is on.", "good");
    };
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const response = await fetch("/calls", {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ type: "offer", sdp: peer.localDescription.sdp }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    call = answer.call;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    watch();
    $("call").textContent = "Hang up";
    $("ab").disabled = false;
  } catch (error) {
    const denied = error.name === "NotAllowedError" || error.name === "NotFoundError";
    end(denied ? "There is no microphone, or the browser may not use it; allow it and call again."
               : error.message, "bad");
  }
  $("call").disabled = false;
}

function end(sentence = "The call is over.", kind = "") {
  if (call) fetch(`/calls/${call}`, { method: "DELETE", keepalive: true }).catch(() => {});
  if (socket) { socket.onclose = null; socket.close(); }
  if (peer) { peer.onconnectionstatechange = null; peer.close(); }
  if (microphone) microphone.getTracks().forEach((track) => track.stop());
  peer = call = socket = microphone = null;
  $("call").textContent = "Call";
  $("ab").disabled = true;
  say(sentence, kind);
}

function prefer(transceiver, name) {
  const all = RTCRtpReceiver.getCapabilities("audio").codecs;
  const wanted = all.filter((codec) => codec.mimeType.toLowerCase() === `audio/${name}`.toLowerCase());
  if (wanted.length) transceiver.setCodecPreferences(wanted);
}

function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    connection.addEventListener("icegatheringstatechange", () => {
      if (connection.iceGatheringState === "complete") done();
    });
  });
}

function watch() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/calls/${call}/view`);
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.kind === "about") prepare(message);
    else if (message.kind === "now") show(message);
    else if (message.error) say(message.error, "bad");
  };
  socket.onclose = () => end("The call was ended by the server.", "bad");
}

function set(name, value) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ set: { [name]: value } }));
}

function prepare(message) {
  about = message;
  $("about").textContent = `Model ${message.model} on ${message.provider}.`;
  const form = $("knobs");
  form.replaceChildren();
  for (const control of message.controls) {
    if (control.kind === "switch") continue;
    const box = document.createElement("div");
    box.className = "knob";
    const label = document.createElement("label");
    label.htmlFor = `knob-${control.name}`;
    label.textContent = words[control.name] || control.name;
    const out = document.createElement("output");
    out.id = `value-${control.name}`;
    out.htmlFor = label.htmlFor;
    const knob = document.createElement("input");
    Object.assign(knob, { type: "range", id: label.htmlFor, min: 0, max: 1000, step: 5 });
    knob.addEventListener("input", () => {
      const value = fromKnob(control, knob.value / 1000);
      set(control.name, value);
      showKnob(control, value);
    });
    const help = document.createElement("small");
    help.id = `help-${control.name}`;
    help.textContent = control.help;
    knob.setAttribute("aria-describedby", help.id);
    box.append(label, out, knob, help);
    form.append(box);
  }
}

function fromKnob(control, position) {
  const { low, high } = control;
  const value = control.kind === "log" ? low * (high / low) ** position : low + (high - low) * position;
  return Math.min(high, Math.max(low, Number(value.toPrecision(4))));
}

function showKnob(control, value) {
  const { low, high } = control;
  const knob = $(`knob-${control.name}`);
  const position = control.kind === "log" ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  if (document.activeElement !== knob) knob.value = Math.round(1000 * position);
  const text = control.name === "wet" ? `${Math.round(100 * value)} %`
    : `${Number(value.toFixed(control.unit === "Hz" ? 0 : 1))} ${control.unit}`;
  $(`value-${control.name}`).textContent = text;
  knob.setAttribute("aria-valuetext", text);
}

function show(now) {
  globalThis.lookedAt = now;
  for (const control of about.controls) {
    if (control.kind !== "switch") showKnob(control, now.controls[control.name]);
  }
  const on = now.controls.bypass === 0;
  $("ab").setAttribute("aria-checked", String(on));
  $("ab").querySelector("b").textContent = on ? "on" : "off";
  const ends = now.cutoff_hz ? `${(now.cutoff_hz / 1000).toFixed(1)} kHz` : "an unknown frequency";
  $("cutoff").textContent = `${now.codec_in || "Nothing"} comes in and ends at ${ends}; ${now.codec_out} goes out.`;
  draw(now);
  rows($("latency").tBodies[0], Object.entries(now.latency_ms).filter(([name]) => name !== "total"));
  rows($("latency").tFoot, [["total", now.latency_ms.total]]);
  $("fallback").textContent = now.fallback ? `The sound goes out as it came: ${now.fallback}.` : "The new band is on.";
  $("fallback").className = now.fallback ? "bad" : "";
  const facts = [
    ["Packets lost", `${now.lost} (${(100 * now.lost_share).toFixed(1)} %)`],
    ["Packets too late", now.late],
    ["Jitter", `${now.jitter_ms} ms`],
    ["Sound made up", `${now.concealed_seconds} s`],
    ["Without the new band", `${now.fallback_seconds} s`],
    ["Deadlines missed", now.missed],
    ["Model step, median", `${now.step_p50_ms} ms`],
    ["Model step, 1 in 1000", `${now.step_p999_ms} ms`],
    ["Calls", `${now.calls} of ${now.capacity}`],
    ["Duration", `${Math.floor(now.seconds)} s`],
  ];
  const list = $("health");
  if (list.children.length !== 2 * facts.length) {
    list.replaceChildren(...facts.flatMap(([name]) => {
      const term = document.createElement("dt");
      term.textContent = name;
      return [term, document.createElement("dd")];
    }));
  }
  facts.forEach(([, value], i) => { list.children[2 * i + 1].textContent = value; });
}

function rows(body, entries) {
  while (body.rows.length > entries.length) body.deleteRow(-1);
  while (body.rows.length < entries.length) {
    const row = body.insertRow();
    row.append(document.createElement("th"));
    row.cells[0].scope = "row";
    row.insertCell();
  }
  entries.forEach(([name, value], i) => {
    body.rows[i].cells[0].textContent = name;
    body.rows[i].cells[1].textContent = value.toFixed(2);
  });
}

function draw(now) {
  const data = [about.bands_hz, now.before_db, now.after_db, about.bands_hz.map(() => null)];
  if (plot) { plot.setData(data); return; }
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { stroke: () => color("--soft"), grid: { stroke: () => color("--line") } };
  plot = new uPlot({
    width: $("spectrum").clientWidth, height: 240, legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false, distr: 3, range: [60, 24000] }, y: { range: [-110, 0] } },
    axes: [
      { ...axis, filter: (_, all) => all,
        splits: (chart) => (chart.width < 480 ? [100, 400, 1600, 4000, 16000] : [100, 200, 500, 1000, 2000, 4000, 8000, 16000]),
        values: (_, all) => all.map((hz) => (hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`)) },
      { ...axis, size: 60, values: (_, all) => all.map((db) => `${db} dB`) },
    ],
    series: [
      {},
      { stroke: () => color("--before"), width: 2, points: { show: false } },
      { stroke: () => color("--after"), width: 2, points: { show: false } },
      { show: false },
    ],
  }, data, $("spectrum"));
  new ResizeObserver(() => plot.setSize({ width: $("spectrum").clientWidth, height: 240 })).observe($("spectrum"));
}

$("call").addEventListener("click", () => (peer ? end() : begin()));
$("ab").addEventListener("click", () => {
  const on = $("ab").getAttribute("aria-checked") === "true";
  set("bypass", on ? 1 : 0);
});
$("knobs").addEventListener("submit", (event) => event.preventDefault());
addEventListener("pagehide", () => { if (peer) end(); });
