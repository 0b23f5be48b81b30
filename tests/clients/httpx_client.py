"""Exercises the gateway with httpx, several requests at once on an asynchronous client.

Usage: httpx_client.py URL. Prints one JSON object; `ok` is true when all held.
"""

import asyncio
import json
import sys

import httpx


async def main(url: str) -> None:
    checks = {}
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answers = await asyncio.gather(*(client.get(f"{url}/httpx/{n}") for n in range(40)))
        targets = [answer.json()["target"] for answer in answers]
        checks["concurrent"] = targets == [f"/httpx/{n}" for n in range(40)]

        async def parts():
            for part in (b"one", b"two"):
                yield part

        sent = (await client.post(f"{url}/httpx", content=parts())).json()
        checks["chunks"] = sent["body"] == "onetwo" and sent["chunks"] >= 1
        form = (await client.post(f"{url}/httpx", data={"k": "v w"})).json()
        checks["form"] = form["body"] == "k=v+w"
        async with client.stream("GET", f"{url}/chunks") as stream:
            checks["stream"] = b"".join([part async for part in stream.aiter_bytes()]) == b"one two three"
        checks["hints"] = (await client.get(f"{url}/hints")).text == "final"
    print(json.dumps({"ok": all(checks.values()), "checks": checks}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
