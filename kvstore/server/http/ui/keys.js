// Search, put, delete and watch keys by requests to this replica. Keys are kept as bytes.

import { decoded, escaped, named, shown } from "./bytes.js";
import { element, make } from "./elements.js";
import { cell } from "./tables.js";

const PAGE = 50;
const LONGEST = 300;

export class Keys {
  constructor() {
    this.search = element("search");
    this.write = element("write");
    this.records = element("records");
    this.more = element("more");
    this.cursor = null;
    this.feed = null;
    this.search.addEventListener("submit", (event) => this.begin(event));
    this.write.addEventListener("submit", (event) => this.put(event));
    this.more.addEventListener("click", () => this.page());
    element("watch").addEventListener("change", (event) => this.watch(event.target.checked));
  }

  get prefix() {
    return escaped(decoded(this.search.elements.prefix.value));
  }

  begin(event) {
    event.preventDefault();
    this.refresh();
    if (this.feed !== null) this.watch(true);
  }

  async refresh() {
    this.cursor = null;
    await this.page();
  }

  async page() {
    const from = this.cursor === null ? "" : `&cursor=${encodeURIComponent(this.cursor)}`;
    const found = await this.ask(`/kv/?limit=${PAGE}&prefix=${this.prefix}${from}`);
    if (found === null) return;
    const { records, more, cursor } = await found.json();
    const rows = records.map((record) => this.row(record));
    if (this.cursor === null) this.records.replaceChildren(...rows);
    else this.records.append(...rows);
    this.cursor = more ? cursor : null;
    this.more.hidden = !more;
  }

  row(record) {
    const key = named(record, "key");
    const row = make("tr", { "data-key": escaped(key) });
    row.append(cell(shown(key), "text"), cell(shortened(shown(named(record, "value"))), "text"));
    row.append(cell(record.revision), cell(record.version), cell(record.lease ?? ""));
    row.append(make("td", {}, this.button("Edit", key, () => this.edit(key)), " ", this.button("Delete", key, () => this.remove(key))));
    return row;
  }

  button(text, key, act) {
    const made = make("button", { type: "button", "aria-label": `${text} ${shown(key)}` }, text);
    made.addEventListener("click", act);
    return made;
  }

  async edit(key) {
    const found = await this.ask(`/kv/${escaped(key)}`);
    if (found === null) return;
    this.write.elements.key.value = shown(key);
    this.write.elements.value.value = shown(new Uint8Array(await found.arrayBuffer()));
    this.write.elements.value.focus();
  }

  async put(event) {
    event.preventDefault();
    const { key, value } = this.write.elements;
    const name = decoded(key.value);
    const done = await this.ask(`/kv/${escaped(name)}`, { method: "PUT", body: decoded(value.value) });
    if (done === null) return;
    const { revision, version } = await done.json();
    this.tell(`${shown(name)} was set at revision ${revision}, version ${version}`);
    await this.refresh();
  }

  async remove(key) {
    if (!confirm(`Delete ${shown(key)}?`)) return;
    const done = await this.ask(`/kv/${escaped(key)}`, { method: "DELETE" });
    if (done === null) return;
    this.tell(`${shown(key)} was deleted`);
    await this.refresh();
  }

  watch(on) {
    if (this.feed !== null) this.feed.close();
    this.feed = on ? new EventSource(`/watch?prefix=${this.prefix}`) : null;
    if (!on) return;
    this.feed.addEventListener("open", () => this.refresh().then(() => this.tell("Changes are shown as they happen.")));
    this.feed.addEventListener("put", (event) => this.changed(JSON.parse(event.data)));
    this.feed.addEventListener("delete", (event) => this.find(JSON.parse(event.data))?.remove());
    this.feed.addEventListener("lost", () => this.watch(true));
  }

  changed(record) {
    const row = this.row(record);
    row.className = "new";
    const known = this.find(record);
    if (known) known.replaceWith(row);
    else this.records.prepend(row);
    while (this.records.children.length > 4 * PAGE) this.records.lastChild.remove();
  }

  find(record) {
    const key = escaped(named(record, "key"));
    return [...this.records.children].find((row) => row.dataset.key === key);
  }

  async ask(target, options = {}) {
    try {
      const answer = await fetch(target, options);
      if (answer.ok) return answer;
      const problem = await answer.json();
      this.tell(`${problem.title}. ${problem.detail}`, true);
    } catch {
      this.tell("This replica does not answer.", true);
    }
    return null;
  }

  tell(text, bad = false) {
    const told = element("told");
    told.textContent = text;
    told.className = bad ? "bad" : "";
  }
}

function shortened(text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
