// The newest slots, and the table of members.

import { make } from "./elements.js";

export function cell(content, kind = "") {
  const made = make("td", kind ? { class: kind } : {});
  made.textContent = content;
  return made;
}

export function showSlots(list, slots) {
  const items = slots.slice(-48).reverse().map((slot) => {
    const commands = make("small");
    commands.textContent = slot.commands === 0 ? "no-op" : slot.commands;
    const ballot = slot.ballot ? `, accepted under ballot ${slot.ballot}` : "";
    const title = `slot ${slot.slot}: ${slot.state}${ballot}, ${slot.size_bytes} bytes`;
    return make("li", { class: `slot ${slot.state}`, title }, String(slot.slot), commands);
  });
  list.replaceChildren(...items);
}

export function showMembers(body, status) {
  const rows = status.members.map((member) => {
    const heard = member.name === status.id ? "" : ago(member.heard_ms_ago);
    const behind = member.lag ?? "";
    const role = member.joining ? `${member.role}, becomes ${member.becomes}` : member.role;
    const name = member.name === status.leader ? `${member.name}, leader` : member.name;
    const cells = [name, role, member.address, member.connected ? "yes" : "no", heard, behind];
    return make("tr", {}, ...cells.map((content) => cell(content)));
  });
  body.replaceChildren(...rows);
}

function ago(ms) {
  if (ms === null) return "never";
  return ms < 1000 ? "now" : `${Math.round(ms / 1000)} s ago`;
}
