// The event streams of a replica, each opened once for all its listeners.

const RETRY_MS = 1000;
const MOST = 4; // of the six connections that a browser makes to one host: the others are for requests
const EVENTS = ["glimpse", "put", "delete", "lost"];

export class Streams {
  constructor() {
    this.streams = new Map();
  }

  // Calls `tell` with each {url, type, data}. `type` is an event of the stream; "open", after which a listener may have
  // missed events; or "refused", if there are too many streams.
  listen(url, tell) {
    if (!this.streams.has(url)) {
      if (this.streams.size >= MOST) {
        tell({ url, type: "refused" });
        return;
      }
      this.streams.set(url, new Stream(url));
    }
    this.streams.get(url).add(tell);
  }

  leave(url, tell) {
    const stream = this.streams.get(url);
    if (stream === undefined || !stream.remove(tell)) return;
    stream.close();
    this.streams.delete(url);
  }

  leaveAll(tell) {
    for (const url of [...this.streams.keys()]) this.leave(url, tell);
  }
}

class Stream {
  constructor(url) {
    this.url = url;
    this.listeners = new Set();
    this.open();
  }

  open() {
    this.isOpen = false;
    this.source = new EventSource(this.url);
    this.source.addEventListener("open", () => {
      this.isOpen = true;
      this.tellAll("open");
    });
    this.source.addEventListener("error", () => {
      this.isOpen = false;
      // EventSource itself connects again after a lost connection, but not after an error, such as 503 or 502 of a proxy.
      if (this.source.readyState === EventSource.CLOSED) this.reopen(RETRY_MS);
    });
    for (const type of EVENTS) this.source.addEventListener(type, (event) => this.heard(type, event.data));
  }

  heard(type, data) {
    if (type === "lost") this.reopen(0);
    else this.tellAll(type, data);
  }

  reopen(afterMs) {
    this.source.close();
    this.timer = setTimeout(() => this.open(), afterMs);
  }

  add(tell) {
    this.listeners.add(tell);
    if (this.isOpen) tell({ url: this.url, type: "open" });
  }

  // Returns whether no listener is left.
  remove(tell) {
    this.listeners.delete(tell);
    return this.listeners.size === 0;
  }

  close() {
    clearTimeout(this.timer);
    this.source.close();
  }

  tellAll(type, data) {
    for (const tell of this.listeners) tell({ url: this.url, type, data });
  }
}
