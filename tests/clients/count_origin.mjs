// A Node origin with the lenient parser on a free loopback port; serves until its standard input ends.
//
// Usage: count_origin.mjs. Prints `port N` when it listens, then `METHOD TARGET BODYLENGTH` for each request that it has read
// whole, and `broken` for bytes that it could not read. Answers with the target.

import http from "node:http";

const server = http.createServer({ insecureHTTPParser: true, keepAliveTimeout: 60000 }, (request, response) => {
  let length = 0;
  request.on("data", (part) => (length += part.length));
  request.on("end", () => {
    console.log(`${request.method} ${request.url} ${length}`);
    response.end(request.url);
  });
});
server.on("clientError", (error, socket) => {
  if (error.code !== "ECONNRESET") console.log("broken");
  socket.destroy();
});
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
process.stdin.on("end", () => process.exit(0)).resume();
