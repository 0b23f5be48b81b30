// Exercises the gateway with Node's http2 module.
//
// Usage: http2_client.mjs URL CA_FILE. Prints one JSON object: how many of 50 requests at once were answered rightly, and
// how much of a large body arrived.

import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const url = new URL(process.argv[2]);
const session = connect(url.origin, { ca: readFileSync(process.argv[3]) });

function ask(path, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":path": path, ":method": body ? "POST" : "GET" });
    let text = "";
    stream.setEncoding("utf8");
    stream.on("data", (part) => (text += part));
    stream.on("end", () => resolve(JSON.parse(text)));
    stream.on("error", reject);
    stream.end(body);
  });
}

const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => ask(`${url.pathname}/${n}`)));
const ok = answers.filter((answer, n) => answer.target === `${url.pathname}/${n}`).length;
const posted = (await ask(url.pathname, Buffer.alloc(300_000, "x"))).body_len;
console.log(JSON.stringify({ ok, posted }));
session.close();
