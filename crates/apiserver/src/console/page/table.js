// Tables that keep their rows: each update changes only the cells that differ. A column header sorts.

import { element, setText } from "./dom.js";
import { Bar } from "./chart.js";

/**
 * A table. A column is `{ key, label, text(row), value?(row), part?(row), title?(row), mark?(row), minor? }`:
 * `value` is the number to sort by and makes a numeric column, `part` draws a bar (`alarms`: red when full), `mark` names a state, `minor`
 * columns are left out on narrow screens.
 */
export class Table {
  constructor(host, { labelledby, columns, rowKey, empty, absent, sort }) {
    Object.assign(this, { host, columns, rowKey, empty, absent, sort, rows: new Map(), latest: [] });
    this.message = element("p", { class: "empty" });
    this.heads = columns.map((column) => this.head(column));
    this.body = element("tbody");
    const table = element("table", { "aria-labelledby": labelledby },
      element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    this.scroller = element("div", { class: "scroll", tabindex: "0", role: "group", "aria-labelledby": labelledby },
      table);
    host.append(this.message, this.scroller);
    this.showSort();
  }

  /** Shows these rows. `null` means that the server does not have this part. */
  update(rows) {
    this.latest = rows ?? [];
    const isEmpty = this.latest.length === 0;
    this.message.hidden = !isEmpty;
    this.scroller.hidden = isEmpty;
    setText(this.message, rows ? this.empty : this.absent);
    const seen = new Set(this.latest.map(this.rowKey));
    for (const [key, row] of this.rows) {
      if (!seen.has(key)) {
        row.node.remove();
        this.rows.delete(key);
      }
    }
    this.sorted().forEach((data, at) => this.updateRow(data, at));
  }

  updateRow(data, at) {
    const key = this.rowKey(data);
    if (!this.rows.has(key)) this.rows.set(key, this.newRow(key));
    const row = this.rows.get(key);
    this.columns.forEach((column, index) => updateCell(row.cells[index], column, data));
    if (this.body.children[at] !== row.node) this.body.insertBefore(row.node, this.body.children[at] ?? null);
  }

  newRow(key) {
    const cells = this.columns.map((column, index) => newCell(column, index === 0));
    return { cells, node: element("tr", { "data-row": key }, ...cells.map((cell) => cell.node)) };
  }

  sorted() {
    const { key, ascending } = this.sort ?? {};
    const column = this.columns.find((it) => it.key === key);
    if (!column) return this.latest;
    const of = column.value ?? column.text;
    const compare = (a, b) => (a === b ? 0 : (a ?? -1) < (b ?? -1) ? -1 : 1);
    return [...this.latest].sort((one, other) => compare(of(one), of(other)) * (ascending ? 1 : -1));
  }

  head(column) {
    const button = element("button", { type: "button" }, column.label);
    button.addEventListener("click", () => {
      const ascending = this.sort?.key === column.key ? !this.sort.ascending : !column.value;
      this.sort = { key: column.key, ascending };
      this.showSort();
      this.update(this.latest);
    });
    return element("th", { scope: "col", class: classes(column) }, button);
  }

  showSort() {
    this.columns.forEach((column, index) => {
      const order = this.sort?.key === column.key ? (this.sort.ascending ? "ascending" : "descending") : "none";
      this.heads[index].setAttribute("aria-sort", order);
    });
  }
}

function newCell(column, isFirst) {
  const text = element("span", { class: "text" });
  const node = element(isFirst ? "th" : "td", {
    class: classes(column), "data-column": column.key, scope: isFirst && "row",
  }, text);
  const bar = column.part && new Bar();
  if (bar) node.append(bar.node);
  return { node, text, bar };
}

function updateCell({ node, text, bar }, column, data) {
  setText(text, column.text(data));
  if (column.value) node.dataset.value = String(column.value(data) ?? "");
  if (bar) bar.set(column.part(data), column.alarms ?? false);
  if (column.title) node.title = column.title(data);
  if (column.mark) node.dataset.mark = column.mark(data);
}

function classes(column) {
  return [column.value && "number", column.minor && "minor"].filter(Boolean).join(" ");
}
