// The parts of the page and the numbers of a snapshot that they show.

import { byId, element, setText } from "./dom.js";
import { Sparkline } from "./chart.js";
import { NONE, bytes, count, duration, rate } from "./format.js";
import { Table } from "./table.js";

/** All parts of the page. */
export class Board {
  constructor() {
    this.tiles = TILES.map((tile) => newTile(tile));
    byId("tiles").append(...this.tiles.map((tile) => tile.node));
    this.facts = FACTS.map(([label, of]) => ({ of, node: newFact(byId("store"), label) }));
    this.events = new Table(byId("events"), { ...EVENTS, labelledby: "events-title" });
    this.tables = TABLES.map(([id, rows, table]) => ({ rows, table: new Table(byId(id), { ...table, labelledby: `${id}-title` }) }));
  }

  /** Shows audit events, or why there are none. */
  updateEvents(events, reason) {
    this.events.absent = reason;
    this.events.update(events);
  }

  /** Shows a snapshot. */
  update(snapshot) {
    const { server, store, caches } = snapshot;
    setText(byId("about"), about(server));
    setText(byId("store-engine"), store.engine ?? "does not answer");
    setText(byId("caches-summary"),
      `${count(caches.objects)} objects, ${bytes(caches.bytes)}, ${count(caches.watchers)} watchers, ${caches.count} resources`);
    for (const tile of this.tiles) updateTile(tile, snapshot);
    for (const { of, node } of this.facts) setText(node, of(store));
    for (const { rows, table } of this.tables) table.update(rows(snapshot));
  }
}

/** The tiles: label, id, value, its text, and a second line. */
const TILES = [
  ["Requests per second", "requests", (s) => s.requests.perSecond, rate, (s) => `${count(s.requests.total)} in total`],
  ["Latency p99", "latency", (s) => s.requests.p99, duration, (s) => `p50 ${duration(s.requests.p50)}`],
  ["In flight", "in-flight", (s) => s.requests.inFlightReads + s.requests.inFlightWrites, count,
    (s) => `${count(s.requests.inFlightReads)} reads, ${count(s.requests.inFlightWrites)} writes`],
  ["Long-running", "long-running", (s) => s.requests.longRunning, count,
    (s) => `${count(s.caches.watchers)} on watch caches`],
  ["Errors per second", "failed",
    (s) => (s.requests.failedPerSecond === null ? null : s.requests.failedPerSecond + s.requests.rejectedPerSecond), rate,
    (s) => `429: ${rate(s.requests.rejectedPerSecond)}, 5xx: ${rate(s.requests.failedPerSecond)}`],
  ["Writes per second", "writes", (s) => s.store.writesPerSecond, rate, (s) => `revision ${count(s.store.revision)}`],
];

/** The facts about the store. */
const FACTS = [
  ["Revision", (s) => count(s.revision)],
  ["Oldest readable revision", (s) => count(s.compacted)],
  ["Size on disk", (s) => bytes(s.bytes)],
  ["In use", (s) => bytes(s.bytesInUse)],
  ["Commits", (s) => count(s.commits)],
  ["Commits per second", (s) => rate(s.commitsPerSecond)],
  ["Commit with sync", (s) => duration(s.commitMean)],
  ["Writes per second", (s) => rate(s.writesPerSecond)],
  ["Write, mean", (s) => duration(s.writeMean)],
  ["Reads per second", (s) => rate(s.readsPerSecond)],
  ["Failed operations", (s) => count(s.errors)],
];

const text = (key, label, more = {}) => ({ key, label, text: (row) => String(row[key] ?? NONE), ...more });
const number = (key, label, format = count, more = {}) =>
  ({ key, label, value: (row) => row[key], text: (row) => format(row[key]), ...more });
const minor = { minor: true };
const name = (row) => row.name;

/** The tables: id, rows of a snapshot, columns. */
const TABLES = [
  ["verbs", (s) => s.verbs, {
    rowKey: (row) => row.verb, empty: "No requests yet.", absent: "", sort: { key: "total", ascending: false },
    columns: [text("verb", "Verb"), number("perSecond", "Per s", rate), number("p50", "p50", duration),
      number("p99", "p99", duration), number("total", "Total", count)],
  }],
  ["levels", (s) => s.priorityLevels, {
    rowKey: name, empty: "No priority levels.", absent: "Priority and fairness is off.", sort: { key: "name", ascending: true },
    columns: [text("name", "Level"),
      number("seatsInUse", "Seats", count, {
        text: (row) => `${count(row.seatsInUse)} / ${count(row.seats)}`, part: (row) => row.seatsInUse / row.seats, alarms: true,
        title: (row) => `${count(row.nominalSeats)} seats by its shares`,
      }),
      number("queued", "Queued"), number("dispatchedPerSecond", "Per s", rate),
      number("waitP99", "Wait p99", duration, minor), number("rejected", "Rejected", count, minor)],
  }],
  ["queues", (s) => s.queues, {
    rowKey: (row) => `${row.level} ${row.index}`, empty: "No request waits or executes in a queue.",
    absent: "Priority and fairness is off.", sort: { key: "waiting", ascending: false },
    columns: [text("level", "Level"), number("index", "Queue", (index) => String(index)), number("waiting", "Waiting"),
      number("executing", "Executing"), number("seatsInUse", "Seats")],
  }],
  ["flows", (s) => s.flows, {
    rowKey: (row) => `${row.name} ${row.priorityLevel}`, empty: "No requests yet.", absent: "Priority and fairness is off.",
    sort: { key: "perSecond", ascending: false },
    columns: [text("name", "Flow schema"), text("priorityLevel", "Level", minor), number("perSecond", "Per s", rate),
      number("mean", "Mean", duration), number("p99", "p99", duration, minor), number("queued", "Queued"),
      number("dispatched", "Total", count, minor)],
  }],
  ["caches", (s) => s.caches.shown, {
    rowKey: (row) => `${row.resource}.${row.group}`, empty: "No watch caches.", absent: "", sort: { key: "bytes", ascending: false },
    columns: [
      { key: "resource", label: "Resource", text: (row) => (row.group ? `${row.resource}.${row.group}` : row.resource) },
      number("objects", "Objects"), number("bytes", "Size", bytes), number("watchers", "Watchers"),
      { key: "buckets", label: "Watchers by field", text: (row) => row.buckets.map(bucket).join(", ") || NONE, ...minor },
      number("eventsPerSecond", "Events/s", rate, minor),
      number("windowEvents", "Window", count, {
        text: (row) => `${count(row.windowEvents)} / ${count(row.windowCapacity)}`,
        part: (row) => row.windowEvents / row.windowCapacity, minor: true,
      }),
      number("windowBytes", "Window size", bytes, minor), number("lag", "Lag", count, minor)],
  }],
  ["clients", (s) => s.clients, {
    rowKey: (row) => row.user, empty: "No requests in the last minute.", absent: "", sort: { key: "time", ascending: false },
    columns: [{ key: "user", label: "User", text: (row) => shortName(row.user), title: (row) => row.user },
      number("requests", "Requests", count, minor), number("time", "Time spent", duration),
      number("mean", "Mean", duration, minor), number("slowest", "Slowest", duration), number("failures", "Failed", count, minor)],
  }],
  ["webhooks", (s) => s.webhooks, {
    rowKey: (row) => `${row.kind} ${row.name}`, empty: "No webhook was called.", absent: "No webhook was called.",
    sort: { key: "calls", ascending: false },
    columns: [text("name", "Webhook"), { key: "health", label: "Health", text: health, mark: health },
      text("kind", "Type", minor), number("perSecond", "Per s", rate), number("mean", "Mean", duration),
      number("p99", "p99", duration, minor), number("denied", "Denied", count, minor), number("failed", "Failed")],
  }],
  ["services", (s) => s.apiServices, {
    rowKey: name, empty: "No aggregated servers.", absent: "No aggregated servers.", sort: { key: "name", ascending: true },
    columns: [text("name", "API service"), { key: "available", label: "Health", text: availability, mark: availability },
      number("failures", "Failures")],
  }],
  ["audit", (s) => s.audit && [s.audit], {
    rowKey: () => "audit", empty: "", absent: "Audit is off.",
    columns: [{ key: "events", label: "Events", value: (row) => row.total, text: (row) => count(row.total) },
      number("perSecond", "Per s", rate), number("errors", "Lost")],
  }],
];

/** The table of audit events, in the order of the server: the newest first. */
const EVENTS = {
  rowKey: (row) => `${row.auditId} ${row.stage}`, empty: "No events since this page was opened.", absent: "",
  columns: [{ key: "time", label: "Time", text: (row) => row.time.slice(11, 23), title: (row) => row.time },
    { key: "user", label: "User", text: (row) => shortName(row.impersonated || row.user || "(not authenticated)"),
      title: (row) => (row.impersonated ? `${row.user} as ${row.impersonated}` : row.user) },
    text("verb", "Verb"), { key: "path", label: "Path", text: (row) => row.path, title: (row) => row.path },
    { key: "code", label: "Code", text: (row) => String(row.code || NONE), mark: result },
    number("seconds", "Took", duration, minor), text("level", "Level", minor), text("stage", "Stage", minor)],
};

function result(row) {
  return row.code >= 500 ? "failing" : row.code >= 400 ? "refused" : "ok";
}

function about({ version, kubernetes, memoryBytes, cpu, taskRestarts }) {
  const parts = [version, `Kubernetes ${kubernetes}`];
  if (memoryBytes !== null) parts.push(bytes(memoryBytes));
  if (cpu !== null) parts.push(`${rate(cpu)} CPUs`);
  if (taskRestarts > 0) parts.push(`${count(taskRestarts)} tasks restarted after a panic`);
  return parts.join(" · ");
}

function bucket({ field, count: watchers }) {
  return `${field ?? "all"}: ${count(watchers)}`;
}

/** Returns NAMESPACE/NAME for a service account. */
function shortName(user) {
  return user.replace(/^system:serviceaccount:([^:]+):([^:]+)$/, "$1/$2");
}

function health(row) {
  return row.failedPerSecond > 0 ? "failing" : "ok";
}

function availability(row) {
  return row.available ? "ok" : "unavailable";
}

function newTile([label, id, value, format, detail]) {
  const number_ = element("strong", { id: `tile-${id}` }, NONE);
  const second = element("span", { class: "detail" });
  const spark = new Sparkline();
  const node = element("li", { class: "tile" }, element("span", { class: "label" }, label), number_, second, spark.node);
  return { node, number: number_, second, spark, value, format, detail };
}

function updateTile({ number: node, second, spark, value, format, detail }, snapshot) {
  const now = value(snapshot);
  setText(node, format(now));
  setText(second, detail(snapshot));
  spark.push(now);
}

function newFact(host, label) {
  const node = element("dd", {}, NONE);
  host.append(element("div", {}, element("dt", {}, label), node));
  return node;
}
