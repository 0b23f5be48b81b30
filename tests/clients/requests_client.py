"""Exercises the gateway with requests: keep-alive, bodies, streaming, errors.

Usage: requests_client.py URL. Prints one JSON object; `ok` is true when all held.
"""

import json
import sys

import requests


def main(url: str) -> None:
    session = requests.Session()
    session.trust_env = False
    checks = {}
    first = session.get(f"{url}/py?x=1&y=%C3%A9", headers={"X-Test": "1"}, timeout=20)
    checks["get"] = first.status_code == 200 and first.json()["target"] == "/py?x=1&y=%C3%A9"
    posted = session.post(f"{url}/py", json={"a": [1, 2]}, timeout=20).json()
    checks["json"] = json.loads(posted["body"]) == {"a": [1, 2]}
    # A generator makes requests send chunks.
    chunked = session.put(f"{url}/py", data=(bytes([n]) * 10 for n in range(65, 70)), timeout=20).json()
    checks["chunks"] = chunked["body"] == "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDDEEEEEEEEEE"
    head = session.head(f"{url}/py", timeout=20)
    checks["head"] = head.status_code == 200 and head.content == b"" and int(head.headers["Content-Length"]) > 0
    stream = session.get(f"{url}/chunks", stream=True, timeout=20)
    checks["stream"] = b"".join(stream.iter_content(3)) == b"one two three"
    checks["empty"] = session.get(f"{url}/empty", timeout=20).status_code == 204
    pools = session.get_adapter(url).poolmanager.pools
    checks["one connection"] = sum(pools[key].num_connections for key in pools.keys()) == 1
    print(json.dumps({"ok": all(checks.values()), "checks": checks}))


if __name__ == "__main__":
    main(sys.argv[1])
