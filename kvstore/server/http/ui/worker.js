// The worker that all tabs of a browser share: with a stream for each, the seventh tab would get no connection.

import { Streams } from "./streams.js";

const streams = new Streams();

self.addEventListener("connect", ({ ports: [port] }) => {
  const tell = (event) => port.postMessage(event);
  port.addEventListener("message", ({ data: { listen, leave } }) => {
    if (listen !== undefined) streams.listen(listen, tell);
    else if (leave !== undefined) streams.leave(leave, tell);
    else streams.leaveAll(tell); // the tab is closed, or shows another page
  });
  port.addEventListener("close", () => streams.leaveAll(tell)); // a tab that crashed, in browsers that tell
  port.start();
});
