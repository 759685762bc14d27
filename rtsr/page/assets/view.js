// Shows one live session or call. All that it shows comes from one WebSocket; every knob goes back there.
export const $ = (id) => document.getElementById(id);

// Controls that are not named here appear all the same, under their own names.
const words = {
  wet: "Amount", level_db: "Level", tilt_db: "Brightness", ceiling_hz: "Ends at",
  gate_dbfs: "Silent below", model: "Best model", seed: "Texture", colour: "Colour",
  cutoff_hz: "Input ends at",
};
// Sentences name controls as programs do; here they go by what stands beside them.
const NAMED = /Control '(\w+)'|\b(is|be|for) (\w+)/g;
// What has broken is tried again after this.
export const AGAIN_MS = 2000;
// Browsers know since 2025 whether a list is open.
const OPENS = CSS.supports("selector(:open)");
// A fact of more characters has a line to itself, and leaves the names of the others their width.
const SHORT_FACT = 20;
// The newest message, for whoever looks with the browser's console.
globalThis.lookedAt = null;

export function say(sentence, kind = "") {
  if ($("state").textContent !== sentence) $("state").textContent = sentence;
  $("state").className = kind;
}

export class View {
  // facts(now): pairs of name and text; sentence(now): what comes in and goes out.
  constructor({ facts, sentence, onNow = () => {}, onClose }) {
    Object.assign(this, { facts, sentence, onNow, onClose, socket: null, plot: null, about: null });
    this.learning = null;
    this.focused = "";
    $("ab").addEventListener("click", () => {
      const wasOn = $("ab").getAttribute("aria-checked") === "true";
      this.set("bypass", wasOn ? 1 : 0);
      showSwitch(!wasOn);
    });
    // The chart takes its colours from the system's when it is drawn.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot?.redraw());
    $("knobs").addEventListener("submit", (event) => event.preventDefault());
  }

  open(path) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    // Messages that were sent, and for each control how many must be taken before its value counts:
    // what was on its way before does not turn back what is being turned.
    this.sent = 0;
    this.controls = "";
    this.awaited = {};
    this.socket = new WebSocket(`${scheme}://${location.host}${path}`);
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = (event) => { this.close(); this.onClose(event); };
  }

  close() {
    if (this.socket) { this.socket.onclose = null; this.socket.close(); }
    this.socket = this.learning = null;
    // What is disabled loses the focus.
    this.focused = document.activeElement.id || this.focused;
    $("ab").disabled = true;
    // Nobody knows any longer; the figures stay for who wants to read them.
    text($("fallback"), "\u00a0");
    for (const field of $("knobs").elements) field.disabled = true;
  }

  send(message) {
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(message));
    this.sent += 1;
  }

  set(name, value) {
    // What was wrong with the last one is over.
    if ($("note").className === "bad") this.note("");
    this.send({ set: { [name]: value } });
    this.awaited[name] = this.sent;
  }

  take(message) {
    if (message.kind === "about") this.prepare(message);
    else if (message.kind === "now") this.show(message);
    else if (message.error) this.note(labelled(message.error), "bad");
    else if (message.kind === "learnt") this.note(labelled(message.text), "good");
    else if (message.kind === "given_up") this.note("No knob was learnt.");
    if (message.learning !== undefined) this.showLearning(message.learning);
  }

  note(text, kind = "") {
    $("note").textContent = text;
    $("note").className = kind;
  }

  prepare(about) {
    this.about = about;
    $("about").textContent = about.text;
    $("ab").disabled = false;
    for (const section of document.querySelectorAll("main > [hidden]")) section.hidden = false;
    const isFirst = !this.controls;
    const controls = JSON.stringify([about.controls, about.learns]);
    // What is being turned, typed or learnt goes on where the controls stay what they are.
    if (controls === this.controls) return;
    this.controls = controls;
    if (isFirst) this.note("");
    // What is replaced loses the focus, too.
    this.focused = document.activeElement.id || this.focused;
    $("knobs").replaceChildren(...about.controls.filter(({ name }) => name !== "bypass").map((control) => this.knob(control)));
    if (this.focused && document.activeElement === document.body) $(this.focused)?.focus();
    this.focused = "";
  }

  knob(control) {
    const box = element("div", { className: "knob" });
    const id = `knob-${control.name}`;
    const label = element("label", { htmlFor: id, textContent: words[control.name] || control.name });
    const help = element("small", { id: `help-${control.name}`, textContent: control.help });
    let field, shown = "";
    if (control.kind === "choice") {
      field = element("select", { id });
      field.append(...control.choices.map((name, i) => element("option", { value: i, textContent: name })));
      field.addEventListener("change", () => this.set(control.name, Number(field.value)));
    } else if (control.kind === "switch") {
      field = element("input", { type: "checkbox", id });
      field.addEventListener("change", () => this.set(control.name, field.checked ? 1 : 0));
    } else if (control.kind === "integer") {
      field = element("input", { type: "number", id, min: control.low, max: control.high, step: 1 });
      field.addEventListener("change", () => {
        // What it does not take the server says in a sentence.
        if (field.value !== "") this.set(control.name, Number(field.value));
        delete field.dataset.typed;
      });
      field.addEventListener("input", () => { field.dataset.typed = ""; });
      field.addEventListener("blur", () => { delete field.dataset.typed; });
    } else {
      field = element("input", { type: "range", id, ...range(control) });
      shown = element("output", { id: `value-${control.name}`, htmlFor: id });
      // The knob itself says its value; others turn it, too, and would be read aloud all the time.
      shown.setAttribute("aria-live", "off");
      field.addEventListener("input", () => {
        const value = fromKnob(control, Number(field.value));
        this.set(control.name, value);
        showKnob(control, value);
      });
    }
    field.setAttribute("aria-describedby", help.id);
    box.append(label, shown, field, help);
    if (this.about.learns) {
      const learn = element("button", { type: "button", className: "learn", id: `learn-${control.name}` });
      learn.addEventListener("click", () => this.send({ learn: this.learning === control.name ? null : control.name }));
      box.append(learn);
    }
    return box;
  }

  showLearning(name) {
    this.learning = name;
    if (name) this.note(`Move the MIDI knob for ${words[name] || name}.`);
  }

  show(now) {
    globalThis.lookedAt = now;
    const counts = (name) => !(this.awaited[name] > now.taken);
    for (const control of this.about.controls) {
      if (control.name !== "bypass" && counts(control.name)) showKnob(control, now.controls[control.name]);
      const learn = $(`learn-${control.name}`);
      if (learn) {
        const label = words[control.name] || control.name;
        text(learn, this.learning === control.name ? "Cancel" : now.midi[control.name] || "Learn");
        learn.setAttribute("aria-label", `${learn.textContent}: MIDI knob for ${label}`);
      }
    }
    if (counts("bypass")) showSwitch(now.controls.bypass === 0);
    text($("cutoff"), this.sentence(now));
    this.draw(now);
    rows($("latency").tBodies[0], Object.entries(now.latency_ms).filter(([name]) => name !== "total"));
    rows($("latency").tFoot, [["total", now.latency_ms.total]]);
    text($("fallback"), now.fallback || now.nothing_added || "The new band is on.");
    $("fallback").className = now.fallback ? "bad" : "";
    this.list(this.facts(now));
    this.onNow(now);
  }

  list(facts) {
    const list = $("health");
    if (list.children.length !== 2 * facts.length) {
      list.replaceChildren(...facts.flatMap(() => [element("dt", {}), element("dd", {})]));
    }
    facts.forEach(([name, value], i) => {
      const [term, fact] = [list.children[2 * i], list.children[2 * i + 1]];
      text(term, name);
      text(fact, String(value));
      for (const node of [term, fact]) node.classList.toggle("long", fact.textContent.length > SHORT_FACT);
    });
  }

  draw(now) {
    this.cutoff = now.cutoff_hz;
    // What came in is dotted, and drawn upon what goes out, which is the same over most of the chart.
    const data = [this.about.bands_hz, now.after_db, now.before_db];
    if (this.plot) { this.plot.setData(data); return; }
    const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: () => color("--soft"), grid: { stroke: () => color("--line") } };
    const size = () => ({ width: $("spectrum").clientWidth, height: 240 });
    const edge = (chart) => {
      if (!this.cutoff) return;
      const { ctx, bbox } = chart, x = chart.valToPos(this.cutoff, "x", true);
      ctx.save();
      ctx.strokeStyle = color("--edge");
      ctx.lineWidth = 2 * devicePixelRatio;
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.restore();
    };
    this.plot = new uPlot({
      ...size(), legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false, distr: 3, range: () => this.about.range_hz }, y: { range: [-110, 0] } },
      axes: [
        { ...axis, filter: (_, all) => all,
          splits: (chart) => (chart.width < 480 ? [100, 500, 2000, 8000, 32000] : [100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000])
            .filter((hz) => hz < this.about.range_hz[1]),
          values: (_, all) => all.map((hz) => (hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`)) },
        { ...axis, size: 72, values: (_, all) => all.map((db) => `${db} dB`) },
      ],
      series: [
        {},
        { stroke: () => color("--after"), width: 2, points: { show: false } },
        { stroke: () => color("--before"), width: 2, dash: [3 * devicePixelRatio, 3 * devicePixelRatio], points: { show: false } },
      ],
      hooks: { draw: [edge] },
    }, data, $("spectrum"));
    new ResizeObserver(() => this.plot.setSize(size())).observe($("spectrum"));
  }
}

function labelled(sentence) {
  return sentence.replace(NAMED, (all, control, before, name) =>
    words[control] || (words[name] ? `${before} ${words[name]}` : all));
}

export function kilohertz(hz) {
  return hz ? `${(hz / 1000).toFixed(1)} kHz` : "an unknown frequency";
}

const bars = (gains) => gains.map((gain) => "▁▂▃▄▅▆▇█"[Math.round(7 * (gain / 24 + 0.5))]).join("");
const signed = (gain) => (gain < 0 ? "" : "+") + gain.toFixed(1);

// Facts about what is known of the voice's colour; none where there is none.
export function colour(now) {
  if (!now.colour) return [];
  const { text, gains_db: gains, bands_hz: edges } = now.colour;
  if (!gains.length) return [["Colour", text]];
  const range = `${signed(Math.min(...gains))} to ${signed(Math.max(...gains))} dB`;
  return [
    ["Colour", text],
    [`Colour, ${kilohertz(edges[0])} to ${kilohertz(edges[edges.length - 1])}`, `${bars(gains)} ${range}`],
  ];
}

function element(kind, properties) {
  return Object.assign(document.createElement(kind), properties);
}

// Only what differs is written, or a screen reader would read it again and again.
function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

// A linear knob is in its control's own unit, with a round step that comes by zero; others have 200 steps.
function range({ kind, low, high }) {
  if (kind === "log") return { min: 0, max: 1000, step: 5 };
  const rough = (high - low) / 100, ten = 10 ** Math.floor(Math.log10(rough));
  return { min: low, max: high, step: Number(([1, 2, 5].find((each) => each * ten >= 0.999 * rough) || 10) * ten).toPrecision(1) };
}

function fromKnob({ kind, low, high }, position) {
  if (kind !== "log") return position;
  return Math.min(high, Math.max(low, Number((low * (high / low) ** (position / 1000)).toPrecision(4))));
}

function showSwitch(on) {
  $("ab").setAttribute("aria-checked", String(on));
  text($("ab").querySelector("b"), on ? "on" : "off");
}

function showKnob(control, value) {
  const { low, high } = control;
  const knob = $(`knob-${control.name}`);
  if (control.kind === "switch") { knob.checked = value > 0; return; }
  if (control.kind === "choice" || control.kind === "integer") {
    // Who types is not disturbed, nor is a list that is open (where the browser tells).
    const isBusy = "typed" in knob.dataset || (OPENS && knob.matches(":open"));
    if (!isBusy && knob.value !== String(value)) knob.value = value;
    return;
  }
  const position = control.kind === "log" ? Math.round((1000 * Math.log(value / low)) / Math.log(high / low)) : value;
  knob.value = position;
  const shown = control.at_low && value <= low ? control.at_low
    : control.at_high && value >= high ? control.at_high
    : ["wet", "colour"].includes(control.name) ? `${Math.round(100 * value)} %`
    : `${Number(value.toFixed(control.unit === "Hz" ? 0 : 1))} ${control.unit}`;
  text($(`value-${control.name}`), shown);
  if (knob.getAttribute("aria-valuetext") !== shown) knob.setAttribute("aria-valuetext", shown);
}

function rows(body, entries) {
  while (body.rows.length > entries.length) body.deleteRow(-1);
  while (body.rows.length < entries.length) {
    const row = body.insertRow();
    row.append(element("th", { scope: "row" }));
    row.insertCell();
  }
  entries.forEach(([name, value], i) => {
    text(body.rows[i].cells[0], name);
    text(body.rows[i].cells[1], value.toFixed(2));
  });
}
