"""Switches to a WebSocket as RFC 6455 has it, and echoes bytes then, whatever they are.

Usage: upgrade_origin.py. Prints its port, then for each connection the request line and, once it is over, `closed`.
"""

import base64
import hashlib
import socket
import threading

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def serve(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    head, rest = head.split(b"\r\n\r\n", 1)
    line, *lines = head.split(b"\r\n")
    fields = {name.lower(): value.strip() for name, value in (one.split(b":", 1) for one in lines)}
    print(line.decode(), flush=True)
    if line.startswith(b"GET /refused"):
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        return
    accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest())
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    answer += b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    connection.sendall(answer + rest)
    while data := connection.recv(65536):
        connection.sendall(data)
    print("closed", flush=True)
    connection.close()


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
