// Exercises the gateway with Node's fetch.
//
// Usage: fetch_client.mjs URL. Prints one JSON object; `ok` is true when all held.

const url = process.argv[2];
const checks = {};

const answers = await Promise.all(
  Array.from({ length: 40 }, (_, n) => fetch(`${url}/node/${n}`).then((answer) => answer.json())),
);
checks.concurrent = answers.every((answer, n) => answer.target === `/node/${n}`);

const posted = await fetch(`${url}/node`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ a: 1 }),
}).then((answer) => answer.json());
checks.json = JSON.parse(posted.body).a === 1;

const parts = new ReadableStream({
  start(controller) {
    for (const part of ["one", "two"]) controller.enqueue(new TextEncoder().encode(part));
    controller.close();
  },
});
const chunked = await fetch(`${url}/node`, { method: "PUT", body: parts, duplex: "half" }).then((answer) =>
  answer.json(),
);
checks.chunks = chunked.body === "onetwo";

checks.stream = (await fetch(`${url}/chunks`).then((answer) => answer.text())) === "one two three";
const empty = await fetch(`${url}/empty`);
checks.empty = empty.status === 204 && (await empty.text()) === "";
const head = await fetch(`${url}/node`, { method: "HEAD" });
checks.head = head.status === 200 && Number(head.headers.get("content-length")) > 0;

console.log(JSON.stringify({ ok: Object.values(checks).every(Boolean), checks }));
