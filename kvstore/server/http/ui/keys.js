// Search, put, delete and watch keys by requests to this replica. Keys are kept as bytes.

import { decoded, escaped, isUnaddressable, named, pathOf, shown, shownBytes, shownLines } from "./bytes.js";
import { element, make } from "./elements.js";
import { cell } from "./tables.js";

const PAGE = 50;
const LONGEST = 300;

export class Keys {
  constructor(live) {
    this.live = live;
    this.search = element("search");
    this.write = element("write");
    this.records = element("records");
    this.more = element("more");
    this.cursor = null;
    this.watched = null;
    this.edited = null;
    this.search.addEventListener("submit", (event) => this.begin(event));
    this.write.addEventListener("submit", (event) => this.put(event));
    this.more.addEventListener("click", () => this.page());
    this.switch = element("watch");
    this.switch.addEventListener("change", () => this.watch(this.switch.checked));
    for (const { elements } of [this.search, this.write]) keepLines(elements.prefix ?? elements.key);
  }

  begin(event) {
    event.preventDefault();
    if (this.watched !== null) this.watch(true);
    else this.refresh();
  }

  async refresh() {
    this.cursor = null;
    await this.page();
  }

  async page() {
    const from = this.cursor === null ? "" : `&cursor=${encodeURIComponent(this.cursor)}`;
    const found = await this.ask(() => `/kv/?limit=${PAGE}&prefix=${this.prefix()}${from}`);
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
    row.append(cell(shown(key), "text"), cell(shortened(shownLines(named(record, "value"))), "text"));
    row.append(cell(record.revision), cell(record.version), cell(record.lease ?? ""));
    if (isUnaddressable(key)) row.append(cell("only by command"));
    else row.append(make("td", {}, this.button("Edit", key, () => this.edit(key)), " ", this.button("Delete", key, () => this.remove(key))));
    return row;
  }

  button(text, key, act) {
    const made = make("button", { type: "button", "aria-label": `${text} ${shown(key)}` }, text);
    made.addEventListener("click", act);
    return made;
  }

  prefix() {
    return escaped(decoded(this.search.elements.prefix.value));
  }

  async edit(key) {
    const found = await this.ask(() => pathOf(key));
    if (found === null) return;
    const value = new Uint8Array(await found.arrayBuffer());
    this.write.elements.key.value = shown(key);
    this.write.elements.value.value = shownLines(value);
    this.write.elements.value.focus();
    this.edited = { key: escaped(key), tag: found.headers.get("ETag"), lease: found.headers.get("KV-Lease") };
    this.tell(`${shown(key)} is loaded. Put replaces it unless it changes meanwhile.`);
  }

  // Puts the key of the form. If it is the key that was loaded, its lease stays, and a change by others is not overwritten.
  async put(event) {
    event.preventDefault();
    const { key, value } = this.write.elements;
    const loaded = this.loaded();
    const lease = loaded?.lease ? `?lease=${loaded.lease}` : "";
    const headers = loaded ? { "If-Match": loaded.tag } : {};
    const done = await this.ask(
      () => pathOf(decoded(key.value)) + lease,
      () => ({ method: "PUT", headers, body: decoded(value.value) }),
    );
    if (done === null) return;
    const { revision, version } = await done.json();
    if (loaded) this.edited = { ...loaded, tag: done.headers.get("ETag") };
    this.tell(`${key.value} was set at revision ${revision}, version ${version}`);
    await this.refresh();
  }

  loaded() {
    try {
      return escaped(decoded(this.write.elements.key.value)) === this.edited?.key ? this.edited : null;
    } catch {
      return null; // the request reports what is wrong with the text
    }
  }

  async remove(key) {
    if (!confirm(`Delete ${shown(key)}?`)) return;
    const done = await this.ask(() => pathOf(key), () => ({ method: "DELETE" }));
    if (done === null) return;
    this.tell(`${shown(key)} was deleted`);
    await this.refresh();
  }

  watch(on) {
    if (this.watched !== null) this.live.leave(this.watched);
    this.watched = null;
    if (on) {
      try {
        this.watched = `/watch?prefix=${this.prefix()}`;
      } catch (error) {
        this.tell(error.message, true);
      }
    }
    this.switch.checked = this.watched !== null;
    if (this.watched === null) return;
    this.live.listen(this.watched, {
      open: () => this.refresh().then(() => this.tell("Changes are shown as they happen.")),
      put: (data) => this.changed(JSON.parse(data)),
      delete: (data) => this.find(JSON.parse(data))?.remove(),
      refused: () => {
        this.watch(false);
        this.tell("The tabs of this browser already watch three prefixes, the limit. Switch one of these watches off.", true);
      },
    });
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

  // Both arguments are functions: they fail if a text of the form stands for no bytes.
  async ask(target, options = () => ({})) {
    let request;
    try {
      request = [target(), options()];
    } catch (error) {
      this.tell(error.message, true);
      return null;
    }
    try {
      const answer = await fetch(...request);
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

// An input field drops the line ends of a text that is pasted: they are part of the key.
function keepLines(input) {
  input.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain");
    if (!/[\r\n]/.test(text)) return;
    event.preventDefault();
    input.setRangeText(text.replace(/[\r\n]/g, shownBytes), input.selectionStart, input.selectionEnd, "end");
  });
}

function shortened(text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
