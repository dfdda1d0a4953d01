// The stream of snapshots: Server-Sent Events read with fetch, because EventSource cannot send a bearer token.

const LONGEST_EVENT = 8 * 1024 * 1024;

/** A response that is not a stream. */
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

/** Reads snapshots until the stream ends. Throws `Refused` for another answer than a stream. */
export async function read(token, signal, onSnapshot) {
  const headers = { accept: "text/event-stream" };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch("stream", { headers, signal, cache: "no-store", redirect: "error" });
  if (!response.ok || !response.body) throw await refusal(response);
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    if (text.length > LONGEST_EVENT) throw new Error("an event of the stream is too long");
    const events = text.split("\n\n");
    text = events.pop();
    // A page that was suspended gets several events at once. Each is a point of the charts.
    for (const event of events) onSnapshot(JSON.parse(dataOf(event)));
  }
}

/** Returns the latest audit events; `null` if the server does not audit. Throws `Refused` without the right to them. */
export async function readEvents(token, signal) {
  const headers = { accept: "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch("audit", { headers, signal, cache: "no-store", redirect: "error" });
  if (!response.ok) throw await refusal(response);
  return (await response.json()).events;
}

async function refusal(response) {
  const status = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  return new Refused(response.status, String(status.message ?? response.statusText), retryAfter);
}

function dataOf(event) {
  const lines = event.split("\n").filter((line) => line.startsWith("data: "));
  return lines.map((line) => line.slice("data: ".length)).join("\n");
}
