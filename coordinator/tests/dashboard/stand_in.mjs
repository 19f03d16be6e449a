// The page of a live coordinator under a picture of the test's own: what a short run does not have, and a stream that is
// cut off when the test says so.

import { createServer } from "node:http";

/** Serves the live page's files at another port, with this picture; `cut` ends its streams and refuses new ones. */
export async function standIn(live, picture) {
  const streams = new Set();
  let refused = false;
  const server = createServer(async (request, response) => {
    if (request.url !== "/events") {
      const file = await fetch(new URL(request.url, live));
      for (const name of ["content-type", "content-security-policy", "x-content-type-options"]) {
        response.setHeader(name, file.headers.get(name) ?? "");
      }
      response.writeHead(file.status).end(Buffer.from(await file.arrayBuffer()));
    } else if (refused) {
      response.writeHead(503).end("the test says so");
    } else {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`retry: 200\nevent: picture\ndata: ${JSON.stringify(picture)}\n\n`);
      streams.add(response);
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    show(other) {
      picture = other;
      for (const stream of streams) stream.write(`event: picture\ndata: ${JSON.stringify(picture)}\n\n`);
    },
    cut() {
      refused = true;
      for (const stream of streams) stream.end();
      streams.clear();
    },
    mend() {
      refused = false;
    },
    close() {
      for (const stream of streams) stream.end();
      server.closeAllConnections();
      server.close();
    },
  };
}
