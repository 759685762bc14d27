// The page of a live session.
import { AGAIN_MS, View, colour, kilohertz, say } from "./view.js";

// What a server says that ends: of its own accord, or because it is told to stop (RFC 6455, 7.4.1).
const ENDED = [1000, 1012];

const db = (values) => values.map((value) => (value > -100 ? value.toFixed(1) : "quiet")).join(", ");

const view = new View({
  sentence: (now) => `What comes in ends at ${kilohertz(now.cutoff_hz)}; `
    + (now.nothing_added ? "nothing is added." : `${now.fallback_level} adds what is above.`),
  facts: (now) => [
    ["Fallback level", now.fallback_level],
    ["Last change", now.last_change || "none"],
    ["Under-runs", now.underruns],
    ["Hops skipped", now.overruns],
    ["Late callbacks", now.late_callbacks],
    ["Gaps of the device", now.xruns],
    ["Model step, median", `${now.step_p50_ms.toFixed(2)} ms`],
    ["Model step, 1 in 1000", `${now.step_p999_ms.toFixed(2)} ms`],
    ["Sound in hand", `${now.ahead_ms.toFixed(1)} ms`],
    ["Peak in, dBFS", db(now.in_db)],
    ["Peak out, dBFS", db(now.out_db)],
    ["Workers, devices restarted", `${now.worker_restarts}, ${now.device_restarts}`],
    ["Processor, of one core", now.cpu_percent === null ? "unknown" : `${now.cpu_percent.toFixed(0)} %`],
    ...colour(now),
    ["Duration", `${Math.floor(now.seconds)} s`],
  ],
  onNow: (now) => {
    const good = now.state === "playing";
    say(good ? `Playing from “${now.input}” to “${now.output}”.` : `Now ${now.state}.`, good ? "good" : "bad");
  },
  onClose: ({ code }) => {
    if (ENDED.includes(code)) {
      say("The session is over. Once rtsr live runs again, open the address that it prints.");
      return;
    }
    // A telephone that slept has lost it, too.
    say("The connection is lost and tried again. If rtsr live was started anew, open the address that it prints.", "bad");
    setTimeout(() => view.open("/view"), AGAIN_MS);
  },
});
view.open("/view");
