// Reads /events of the replica that served this page, and updates the parts of the page.

import { element } from "./elements.js";
import { Keys } from "./keys.js";
import { Live } from "./live.js";
import { Messages } from "./messages.js";
import { Picture } from "./picture.js";
import { Plots } from "./plots.js";
import { showMembers, showSlots } from "./tables.js";

const SILENT_MS = 2000;

const state = element("state");
const picture = new Picture(element("picture"));
const messages = new Messages(element("messages"), element("sample"), element("still"));
const plots = new Plots(element("plots"));
const live = new Live();
const keys = new Keys(live);
let last = null;
let heardAt = performance.now();

function say(text, kind) {
  if (state.textContent !== text) state.textContent = text;
  state.className = kind;
}

function show(glimpse) {
  const { status } = glimpse;
  element("cluster").textContent = `${status.cluster} · ${status.id}`;
  document.title = `${status.id} ${status.role} · ${status.cluster}`;
  if (status.leader === null) say(`${status.id} knows no leader: a majority is disconnected, or an election is in progress`, "bad");
  else if (!status.ready) say(`${status.id} is catching up with ${status.leader}`, "bad");
  else say(`${status.id} is ready; the leader is ${status.leader}, ballot ${status.ballot}`, "good");
  if (last !== null && last.status.ballot !== status.ballot && status.leader !== null) {
    messages.announce(`${status.leader} is the leader, ballot ${status.ballot}`);
  }
  messages.add(glimpse, status.id, last === null ? 0 : glimpse.number - last.number - 1);
  picture.show(status, glimpse.messages);
  showSlots(element("slots"), glimpse.slots);
  showMembers(element("members"), status);
  plots.add(glimpse);
  last = glimpse;
}

live.listen("/events", {
  glimpse(data) {
    heardAt = performance.now();
    show(JSON.parse(data));
  },
  open() {
    last = null;
    keys.refresh();
  },
  refused: () => say("This browser watches too much at this replica: close a tab, or switch a watch off", "bad"),
});

setInterval(() => {
  if (performance.now() - heardAt > SILENT_MS) {
    const name = last === null ? "This replica" : last.status.id;
    say(`${name} does not answer: it is down, or disconnected. This page continues when it is back.`, "bad");
    picture.lost();
  }
}, 500);
