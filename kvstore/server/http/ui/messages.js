// The latest messages, newest first, and the number of messages that are not shown.

import { make } from "./elements.js";

const MOST = 120;

export class Messages {
  constructor(list, sample, still) {
    this.list = list;
    this.sample = sample;
    this.still = still;
  }

  add(glimpse, own, missed) {
    const all = Object.values(glimpse.counts).reduce((sum, count) => sum + count, 0);
    const perSecond = Math.round((1000 * all) / glimpse.interval_ms);
    const left = all - glimpse.messages.length;
    const gaps = missed > 0 ? `; ${missed} intervals were missed` : "";
    this.sample.textContent = left
      ? `${perSecond} per second; the first ${glimpse.messages.length} of the last ${all} are shown${gaps}`
      : `${perSecond} per second; all are shown${gaps}`;
    if (!this.still.checked) this.put(glimpse.messages.map((message) => line(message, own)));
  }

  announce(text) {
    const item = make("li", { class: "event" });
    item.textContent = text;
    this.put([item]);
  }

  put(items) {
    this.list.prepend(...items.reverse());
    while (this.list.children.length > MOST) this.list.lastChild.remove();
  }
}

function line(message, own) {
  const [from, to] = message.sent ? [own, message.peer] : [message.peer, own];
  const kind = make("b");
  kind.textContent = message.kind;
  const says = make("span", { class: "soft" });
  says.textContent = Object.entries(message.says).map(([name, value]) => `${name} ${value}`).join(", ");
  return make("li", {}, `${from} → ${to} `, kind, " ", says);
}
