// The replicas in a ring, with the leader, its lease, and messages between them.

import { draw } from "./elements.js";

const WIDTH = 560;
const HEIGHT = 392;
const RADIUS = 54;
const LABEL = 24; // below the lease ring
const NO = new Set(["Reject", "DigestMismatch", "ForgottenVotes"]);
const VOTES = new Set(["Promise", "Accepted", "HeartbeatAck"]);
const MOST_DOTS = 12;
const FLIGHT_MS = 500;

export class Picture {
  constructor(place) {
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    this.title = draw("title");
    this.links = draw("g");
    this.nodes = draw("g");
    this.dots = draw("g");
    this.svg.append(this.title, this.links, this.dots, this.nodes);
    place.append(this.svg);
    this.places = new Map();
    this.leaseMs = 500;
  }

  show(status, messages) {
    const names = status.members.map((member) => member.name);
    this.places = new Map(names.map((name, index) => [name, spot(index, names.length)]));
    const all = status.members.map((member) => `${member.name} ${roleOf(status, member)}`);
    this.title.textContent = `${names.length} replicas: ${all.join(", ")}`;
    this.links.replaceChildren(...this.drawLinks(status));
    this.nodes.replaceChildren(...status.members.map((member) => this.drawNode(status, member)));
    for (const message of messages.slice(0, MOST_DOTS)) this.fly(status.id, message);
  }

  lost() {
    for (const node of this.nodes.querySelectorAll(".node")) node.setAttribute("class", "node down");
  }

  drawLinks(status) {
    const own = this.places.get(status.id);
    return status.members
      .filter((member) => own && member.name !== status.id)
      .map((member) => {
        const there = this.places.get(member.name);
        const kind = member.connected ? "link" : "link down";
        return draw("line", { class: kind, x1: own.x, y1: own.y, x2: there.x, y2: there.y });
      });
  }

  drawNode(status, member) {
    const { x, y } = this.places.get(member.name);
    const own = member.name === status.id;
    const role = roleOf(status, member);
    const group = draw("g");
    const kind = !member.connected ? "down" : role === "leader" ? "leader" : "";
    group.append(draw("circle", { class: `node ${kind}`, cx: x, cy: y, r: RADIUS }));
    if (own && status.lease_left_ms !== null) group.append(this.drawLease(x, y, status.lease_left_ms));
    group.append(text(x, y - 18, "name", member.name), text(x, y - 1, "", role));
    const chosen = own ? status.chosen : member.chosen;
    if (chosen !== null) group.append(text(x, y + 15, "soft", `slot ${chosen}`));
    if (own) group.append(text(x, y + 31, "soft", `applied ${status.applied}`));
    else if (!member.connected) group.append(text(x, y + 19, "soft", unseen(member)));
    if (role === "leader") group.append(text(x, y + RADIUS + LABEL, "soft", `ballot ${status.ballot}`));
    else if (own) group.append(text(x, y + RADIUS + LABEL, "soft", `promised ${status.promised}`));
    return group;
  }

  drawLease(x, y, leftMs) {
    this.leaseMs = Math.max(this.leaseMs, leftMs);
    const share = Math.min(0.9999, leftMs / this.leaseMs);
    const angle = 2 * Math.PI * share;
    const r = RADIUS + 6;
    const end = `${x + r * Math.sin(angle)} ${y - r * Math.cos(angle)}`;
    const path = draw("path", { class: "lease", d: `M ${x} ${y - r} A ${r} ${r} 0 ${share > 0.5 ? 1 : 0} 1 ${end}` });
    path.append(draw("title"));
    path.firstChild.textContent = `lease: ${Math.round(leftMs)} ms left`;
    return path;
  }

  fly(own, message) {
    const [from, to] = message.sent ? [own, message.peer] : [message.peer, own];
    const [start, end] = [this.places.get(from), this.places.get(to)];
    if (!start || !end || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const kind = NO.has(message.kind) ? "dot no" : VOTES.has(message.kind) ? "dot vote" : "dot";
    const dot = draw("circle", { class: kind, r: 5, cx: start.x, cy: start.y });
    this.dots.append(dot);
    const moves = [{ transform: "none" }, { transform: `translate(${end.x - start.x}px, ${end.y - start.y}px)` }];
    dot.animate(moves, { duration: FLIGHT_MS, easing: "linear" }).finished.then(() => dot.remove(), () => dot.remove());
  }
}

function roleOf(status, member) {
  if (member.name === status.id) return status.role;
  if (member.name === status.leader) return "leader";
  return member.role === "voter" ? "follower" : member.role;
}

function unseen(member) {
  return member.heard_ms_ago === null ? "never seen" : `not seen for ${Math.round(member.heard_ms_ago / 1000)} s`;
}

function spot(index, count) {
  const angle = (2 * Math.PI * index) / count - Math.PI / 2;
  return { x: WIDTH / 2 + 190 * Math.cos(angle), y: HEIGHT / 2 + 112 * Math.sin(angle) };
}

function text(x, y, kind, content) {
  const made = draw("text", { x, y, class: kind, "text-anchor": "middle" });
  made.textContent = content;
  return made;
}
