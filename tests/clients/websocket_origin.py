"""A WebSocket origin on a free loopback port; serves until its standard input ends.

Usage: websocket_origin.py [CERT KEY]. Prints `port N` when it listens. Echoes every message, but for the texts
`close` (it closes with 4001) and `ping` (it pings, waits for the pong and answers `ponged`). Prints one line when a
connection has ended: `closed CODE`, the code that the client's close frame had.
"""

import os
import ssl
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def answer(connection) -> None:
    try:
        for message in connection:
            if message == "close":
                connection.close(4001, "as asked")
            elif message == "ping":
                connection.send("ponged" if connection.ping().wait(10) else "no pong")
            else:
                connection.send(message)
    except ConnectionClosed:
        pass
    print(f"closed {connection.close_code}", flush=True)


def main(files: list) -> None:
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    server = serve(answer, "127.0.0.1", 0, ssl=context, subprotocols=["chat"], max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"port {server.socket.getsockname()[1]}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
