// Numbers as people read them. An absent value is a dash.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const significant = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A count: in full up to a million. */
export function count(value) {
  if (isAbsent(value)) return NONE;
  return Math.abs(value) < 1e6 ? whole.format(value) : compact.format(value);
}

/** A number of events per second. */
export function rate(value) {
  if (isAbsent(value)) return NONE;
  if (value === 0) return "0";
  if (value < 0.1) return "<0.1";
  return value < 10 ? significant.format(Math.round(value * 10) / 10) : count(Math.round(value));
}

/** Bytes, in binary units. */
export function bytes(value) {
  if (isAbsent(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let scaled = value;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${scaled >= 100 ? whole.format(scaled) : significant.format(scaled)} ${units[unit]}`;
}

/** A duration given in seconds. */
export function duration(value) {
  if (isAbsent(value)) return NONE;
  if (value === 0) return "0";
  if (value < 0.001) return `${significant.format(Math.max(1, Math.round(value * 1e6)))} µs`;
  if (value < 1) return `${significant.format(value * 1e3)} ms`;
  return `${significant.format(value)} s`;
}

function isAbsent(value) {
  return value === null || value === undefined || Number.isNaN(value);
}
