// The event streams of this tab: those of the worker that all tabs share, or its own while the tab is visible.

import { Streams } from "./streams.js";

export class Live {
  constructor() {
    this.wanted = new Map();
    this.tell = ({ url, type, data }) => this.wanted.get(url)?.[type]?.(data);
    this.port = "SharedWorker" in window ? this.connect() : null;
    this.own = new Streams();
    addEventListener("pagehide", () => this.pause());
    addEventListener("pageshow", (event) => event.persisted && this.resume());
    document.addEventListener("visibilitychange", () => {
      if (this.port !== null) return;
      if (document.hidden) this.pause();
      else this.resume();
    });
  }

  connect() {
    const worker = new SharedWorker("/ui/worker.js", { type: "module", name: "kvstore" });
    worker.addEventListener("error", () => {
      this.port = null; // the worker could not be loaded
      if (!document.hidden) this.resume();
    });
    worker.port.addEventListener("message", (event) => this.tell(event.data));
    worker.port.start();
    return worker.port;
  }

  // `hear` has a function for each type of event, see Streams.
  listen(url, hear) {
    this.wanted.set(url, hear);
    this.begin(url);
  }

  leave(url) {
    this.wanted.delete(url);
    if (this.port === null) this.own.leave(url, this.tell);
    else this.port.postMessage({ leave: url });
  }

  begin(url) {
    if (this.port !== null) this.port.postMessage({ listen: url });
    else if (!document.hidden) this.own.listen(url, this.tell);
  }

  pause() {
    if (this.port === null) this.own.leaveAll(this.tell);
    else this.port.postMessage({});
  }

  resume() {
    for (const url of this.wanted.keys()) this.begin(url);
  }
}
