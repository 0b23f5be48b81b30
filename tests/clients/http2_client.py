"""Exercises the gateway with httpx over HTTP/2.

Usage: http2_client.py URL CA_FILE. Prints one JSON object: the versions that were spoken, how many of 60 requests at once
were answered rightly, and how much of a large body arrived.
"""

import asyncio
import json
import ssl
import sys

import httpx


async def main(url: str, ca: str) -> None:
    trust = ssl.create_default_context(cafile=ca)
    async with httpx.AsyncClient(http1=False, http2=True, verify=trust, trust_env=False, timeout=20) as client:
        answers = await asyncio.gather(*(client.get(f"{url}/{n}") for n in range(60)))
        ok = sum(answer.json()["target"] == f"/real/{n}" for n, answer in enumerate(answers))
        posted = await client.post(url, content=b"x" * 300_000)
        versions = sorted({answer.http_version for answer in [*answers, posted]})
    print(json.dumps({"versions": versions, "ok": ok, "posted": posted.json()["body_len"]}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
