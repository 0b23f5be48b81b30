"""WebSocket conversations with a `websocket_origin.py` behind the gateway.

Usage: websocket_client.py JSON, an object with `address`, and optionally `ca` (then over TLS) and `wait` (true: only
waits for the end of the connection). Prints an object with what was seen.
"""

import json
import os
import ssl
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def opened(order: dict):
    scheme, more = "ws", {}
    if "ca" in order:
        context = ssl.create_default_context(cafile=order["ca"])
        scheme, more = "wss", {"ssl": context, "server_hostname": "localhost"}
    uri = f"{scheme}://{order['address']}/chat?room=1"
    return connect(uri, subprotocols=["chat", "other"], max_size=None, open_timeout=20, proxy=None, **more)


def ended(connection) -> list:
    try:
        connection.recv(timeout=20)
        return ["not closed"]
    except ConnectionClosed as closed:
        return [closed.rcvd and closed.rcvd.code, closed.rcvd_then_sent]


def main(order: dict) -> dict:
    told = {}
    with opened(order) as connection:
        told["subprotocol"] = connection.subprotocol
        told["extensions"] = [extension.name for extension in connection.protocol.extensions]
        if order.get("wait"):
            print("open", flush=True)
            told["end"] = ended(connection)
            return told
        for size in (0, 1, 125, 126, 65535, 65536, 5 << 20):
            data = os.urandom(size)
            connection.send(data)
            assert connection.recv(timeout=20) == data, f"echo of {size} bytes"
        connection.send("text: \u00fc\u20ac")
        told["text"] = connection.recv(timeout=20)
        connection.send(iter(["in ", "three ", "pieces"]))
        told["fragmented"] = connection.recv(timeout=20)
        told["pong"] = connection.ping().wait(20)
        connection.send("ping")
        told["ponged"] = connection.recv(timeout=20)
        connection.close(4000, "enough")
        told["own"] = connection.close_code
    with opened(order) as connection:
        connection.send("close")
        told["theirs"] = ended(connection)
    return told


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
