// The states of the page: connecting, live, waiting to reconnect, paused, signed out. The token is kept in a variable.

import { byId, setText } from "./dom.js";
import { Board } from "./panels.js";
import { read, readEvents, Refused } from "./stream.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;
/** A stream that is silent for this long is dead. */
const SILENCE = 10_000;
/** The time between two reads of the audit events. */
const EVENTS_PAUSE = 2_000;

const board = new Board();
let token = "";
let paused = false;
let current;

/** Opens streams until the page is signed out or paused. */
async function run() {
  current?.abort();
  const stop = new AbortController();
  current = stop;
  let pause = FIRST_PAUSE;
  show("connecting", "Connecting…");
  while (!stop.signal.aborted) {
    try {
      await watch(stop.signal, () => { pause = FIRST_PAUSE; });
    } catch (error) {
      if (stop.signal.aborted) return;
      if (error instanceof Refused && [401, 403, 404].includes(error.status)) return signOut(error);
      const busy = error instanceof Refused && error.status === 429;
      show("lost", busy ? "Too many viewers, waiting…" : "Disconnected, retrying…");
      pause = Math.min(Math.max(pause * 2, (error.retryAfter ?? 0) * 1000), LONGEST_PAUSE);
    }
    await sleep(pause * (0.75 + Math.random() / 2), stop.signal);
  }
}

/** Reads one stream. Ends it if it is silent. */
async function watch(signal, onLive) {
  const stop = new AbortController();
  const end = () => stop.abort();
  signal.addEventListener("abort", end);
  let timer = setTimeout(end, SILENCE);
  watchEvents(stop.signal);
  try {
    await read(token, stop.signal, (snapshot) => {
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE);
      onLive();
      showBoard();
      board.update(snapshot);
    });
  } finally {
    clearTimeout(timer);
    end();
    signal.removeEventListener("abort", end);
  }
}

/** Reads the audit events while a stream is read, unless the user may not. */
async function watchEvents(signal) {
  while (!signal.aborted) {
    try {
      board.updateEvents(await readEvents(token, signal), "Audit is off.");
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && [401, 403, 404].includes(error.status)) {
        return board.updateEvents(null, "This user may not read audit events.");
      }
    }
    await sleep(EVENTS_PAUSE, signal);
  }
}

function showBoard() {
  if (byId("status").dataset.state === "live") return;
  if (!byId("gate").hidden) byId("main").focus();
  byId("gate").hidden = true;
  byId("board").hidden = false;
  byId("pause").hidden = false;
  byId("forget").hidden = token === "";
  show("live", "Live");
}

/** Shows the form, with the reason if the server gave one. */
function signOut(error) {
  current?.abort();
  const hadToken = token !== "";
  token = "";
  byId("gate").hidden = false;
  byId("board").hidden = true;
  byId("pause").hidden = true;
  byId("forget").hidden = true;
  const reasons = {
    401: hadToken ? "The server does not accept this token." : "The server needs a credential.",
    403: hadToken ? `This user may not read the console: ${error?.message}` : "",
    404: "The console is switched off on this server.",
  };
  setText(byId("gate-reason"), reasons[error?.status] ?? "");
  show("out", error?.status === 404 ? "Switched off" : "Signed out");
  byId("token").focus();
}

function show(state, text) {
  const status = byId("status");
  status.dataset.state = state;
  setText(status, text);
  byId("board").classList.toggle("stale", state === "lost" || state === "paused");
}

function sleep(time, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, time);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  run();
});
byId("forget").addEventListener("click", () => signOut());
byId("pause").addEventListener("click", () => {
  paused = !paused;
  setText(byId("pause"), paused ? "Resume" : "Pause");
  if (!paused) return run();
  current?.abort();
  show("paused", "Paused");
});
// A hidden page does not keep the server busy.
document.addEventListener("visibilitychange", () => {
  if (paused || byId("board").hidden) return;
  if (document.hidden) current?.abort();
  else run();
});

run();
