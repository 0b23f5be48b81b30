// A battery of HTTP/1.1 checks with Node's http client.
//
// Usage: battery.mjs URL. The gateway there has what battery.py says. Prints one JSON object; `ok` is true when all held.

import http from "node:http";

const url = new URL(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const checks = {};

function ask(options, body = []) {
  return new Promise((resolve, reject) => {
    const told = { interim: [], continued: false };
    const request = http.request({ host: url.hostname, port: url.port, agent, ...options }, (response) => {
      let text = "";
      response.setEncoding("latin1");
      response.on("data", (part) => (text += part));
      response.on("end", () =>
        resolve({ ...told, text, status: response.statusCode, headers: response.headers, trailers: response.trailers, reused: request.reusedSocket }),
      );
      response.on("error", reject);
    });
    request.on("error", reject);
    request.on("information", (head) => told.interim.push(head.statusCode));
    const send = () => {
      for (const part of body) request.write(part);
      request.end();
    };
    if (options.headers?.Expect) {
      request.on("continue", () => {
        told.continued = true;
        send();
      });
      request.flushHeaders();
    } else {
      send();
    }
  });
}

async function check(name, run) {
  try {
    checks[name] = (await run()) !== false;
  } catch (error) {
    checks[name] = String(error);
  }
}

await check("keep_alive", async () => {
  await ask({ path: "/a" });
  for (let n = 0; n < 50; n++) if (!(await ask({ path: `/a/${n}` })).reused) return false;
});
await check("chunks_both_ways", async () => {
  const sent = JSON.parse((await ask({ method: "POST", path: "/c" }, ["one ", "two"])).text);
  return sent.body === "one two" && (await ask({ path: "/chunks" })).text === "one two three";
});
await check("trailers", async () => {
  const answer = await ask({ path: "/chunks", headers: { TE: "trailers" } });
  return answer.trailers["x-sum"] === "3" && answer.text === "one two three";
});
await check("continue", async () => {
  const headers = { Expect: "100-continue", "Content-Length": 4 };
  const answer = await ask({ method: "POST", path: "/e", headers }, ["body"]);
  return answer.continued && JSON.parse(answer.text).body === "body";
});
await check("early_hints", async () => {
  const answer = await ask({ path: "/hints" });
  return answer.interim.join() === "103" && answer.text === "final";
});
await check("head", async () => {
  const answer = await ask({ method: "HEAD", path: "/h" });
  return answer.text === "" && Number(answer.headers["content-length"]) > 0;
});
await check("no_content", async () => (await ask({ path: "/empty" })).status === 204);
await check("body_to_the_end", async () => (await ask({ path: "/closing" })).text === "to the end");
await check("close", async () => (await ask({ path: "/x", agent: false })).headers.connection === "close");
await check("large_headers", async () => {
  const headers = Object.fromEntries(Array.from({ length: 80 }, (_, n) => [`x-${n}`, "v".repeat(300)]));
  return (await ask({ path: "/large", headers })).status === 200;
});

agent.destroy();
console.log(JSON.stringify({ ok: Object.values(checks).every((value) => value === true), checks }));
