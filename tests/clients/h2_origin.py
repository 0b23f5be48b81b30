"""An origin that speaks HTTP/2 with prior knowledge, by the `h2` package, well and badly.

Usage: h2_origin.py [no-connect]. Prints its port, then a line for each request: its connection's number, method and path.

The path says what it does: /trailers, /empty, /interim, /refuse (the first time REFUSED_STREAM), /goaway (the first time
GOAWAY below the stream), /reset (INTERNAL_ERROR), /cut (DATA, then INTERNAL_ERROR), /silent (nothing),
/large, /crumbs (100 000 octets, 20 in a frame), /later (answered with the next /goodbye), /goodbye (answered, and the connection takes no further streams); any
other path is told of. A WebSocket (RFC 8441; not with `no-connect`) echoes until its client ends it, and prints
"closed"; on /refused it is answered 403.
"""

import json
import socket
import struct
import sys
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

once = set()
lock = threading.Lock()


def first(path):
    with lock:
        if path in once:
            return False
        once.add(path)
        return True


class Connection:
    def __init__(self, socket, number):
        self.socket, self.number = socket, number
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.requests, self.waiting, self.later = {}, {}, {}
        # What is to be echoed on each tunnel, and those whose client has ended.
        self.tunnels, self.over = {}, set()
        # What goes out in small frames.
        self.crumbs = set()

    def run(self):
        self.h2.initiate_connection()
        if "no-connect" not in sys.argv:
            self.h2.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.flush()
        while data := self.socket.recv(65536):
            for event in self.h2.receive_data(data):
                self.take(event)
            self.push()
            self.flush()
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def take(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = {"fields": event.headers, "body": 0, "trailers": None}
            path = dict(event.headers)[":path"]
            print(self.number, dict(event.headers)[":method"], path, flush=True)
            if dict(event.headers)[":method"] == "CONNECT":
                self.open(event.stream_id, dict(self.requests.pop(event.stream_id)["fields"]))
                return
            if path == "/refuse" and first(path):
                self.h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                del self.requests[event.stream_id]
            elif path == "/goaway" and first(path):
                # A GOAWAY for a stream that was not looked at, and nothing after it.
                self.flush()
                self.socket.sendall(b"\0\0\x08\x07\0\0\0\0\0" + struct.pack(">II", 0, 0))
                self.socket.shutdown(socket.SHUT_WR)
                del self.requests[event.stream_id]
        elif isinstance(event, h2.events.DataReceived):
            if event.stream_id in self.tunnels:
                self.tunnels[event.stream_id] += event.data
            elif event.stream_id in self.requests:
                self.requests[event.stream_id]["body"] += len(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.requests[event.stream_id]["trailers"] = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            self.requests.pop(event.stream_id, None)
            self.waiting.pop(event.stream_id, None)
            self.tunnels.pop(event.stream_id, None)
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self.tunnels:
            self.over.add(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self.requests:
            self.answer(event.stream_id, self.requests.pop(event.stream_id))

    def open(self, stream, fields):
        """Answers an extended CONNECT, telling of its fields."""
        if fields[":path"] == "/refused":
            self.h2.send_headers(stream, [(":status", "403")], end_stream=True)
            return
        told = {name: value for name, value in fields.items() if name not in ("x-request-id",)}
        head = [(":status", "200"), ("x-told", json.dumps(told)), ("sec-websocket-protocol", "chat")]
        self.h2.send_headers(stream, head)
        self.tunnels[stream] = b""

    def answer(self, stream, request):
        path = dict(request["fields"])[":path"]
        method = dict(request["fields"])[":method"]
        head = [(":status", "200"), ("x-origin", "h2")]
        if path == "/silent":
            return
        if path == "/later":
            self.later[stream] = request
            return
        if path == "/trailers":
            self.h2.send_headers(stream, head)
            self.h2.send_data(stream, b"with trailers")
            self.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
        elif path == "/empty" or method == "HEAD":
            self.h2.send_headers(stream, head, end_stream=True)
        elif path == "/reset":
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif path == "/cut":
            self.h2.send_headers(stream, head)
            self.h2.send_data(stream, b"cut")
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif path == "/large":
            self.h2.send_headers(stream, head)
            self.waiting[stream] = b"x" * 2_000_000
        elif path == "/crumbs":
            self.h2.send_headers(stream, head)
            self.waiting[stream] = b"".join(b"%9d\n" % number for number in range(10_000))
            self.crumbs.add(stream)
        else:
            if path == "/interim":
                self.h2.send_headers(stream, [(":status", "103"), ("link", "</a>"), ("content-length", "5")])
            told = {**request, "path": path}
            body = json.dumps(told).encode()
            self.h2.send_headers(stream, [*head, ("content-length", str(len(body)))])
            self.waiting[stream] = body
        if path == "/goodbye":
            # In good order: every stream so far is served to its end.
            self.flush()
            self.socket.sendall(b"\0\0\x08\x07\0\0\0\0\0" + struct.pack(">II", stream, 0))
            for stream, request in self.later.items():
                self.answer(stream, {**request, "fields": [(":path", "/was-later"), (":method", "GET")]})
            self.later = {}

    def echo(self):
        for stream, data in list(self.tunnels.items()):
            while data and (room := min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)):
                self.h2.send_data(stream, data[:room])
                data = data[room:]
            self.tunnels[stream] = data
            if not data and stream in self.over:
                self.h2.end_stream(stream)
                del self.tunnels[stream]
                print("closed", flush=True)

    def push(self):
        self.echo()
        for stream, body in list(self.waiting.items()):
            while body:
                room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if room <= 0:
                    break
                if stream in self.crumbs:
                    room = min(room, 20)
                part, body = body[:room], body[room:]
                self.h2.send_data(stream, part, end_stream=not body)
            if body:
                self.waiting[stream] = body
            else:
                del self.waiting[stream]


def serve(connection, number):
    try:
        Connection(connection, number).run()
    except (OSError, h2.exceptions.ProtocolError):
        connection.close()


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
number = 0
while True:
    accepted = listener.accept()[0]
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted, number), daemon=True).start()
    number += 1
