"""An HTTP/2 client that sends frames on purpose: one scenario a run.

usage: h2_frames.py HOST PORT SCENARIO [ARGUMENT...]

Speaks HTTP/2 with prior knowledge over plain TCP by the `h2` package. Prints one JSON object with what it saw.
"""

import json
import socket
import sys
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

PATIENCE = 20.0


class Client:
    """One connection; events are kept by stream."""

    def __init__(self, host, port, validate=True, settings=None):
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=validate,
            normalize_outbound_headers=validate,
        )
        self.h2 = h2.connection.H2Connection(config=config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.socket = socket.create_connection((host, port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.h2.initiate_connection()
        self.authority = f"{host}:{port}"
        self.streams = {}
        self.goaway = None
        self.unread = b""
        self.closed = False
        self.acknowledge = True
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def head(self, path, method="GET", fields=(), authority=None):
        base = [(":method", method), (":scheme", "http"), (":authority", authority or self.authority), (":path", path)]
        return base + list(fields)

    def request(self, path, method="GET", fields=(), end=True, **more):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.head(path, method, fields, **more), end_stream=end)
        self.streams[stream] = {"interim": [], "head": None, "body": b"", "trailers": None, "reset": None, "ended": False}
        self.flush()
        return stream

    def send(self, stream, data, end=False):
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self.turn()
                if self.streams[stream]["reset"] is not None or self.closed:
                    return
                continue
            part, data = data[:room], data[room:]
            self.h2.send_data(stream, part, end_stream=end and not data)
            self.flush()

    def turn(self):
        """Receives once."""
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(self.without_goaway(data)):
            self.take(event)
        self.flush()

    def without_goaway(self, data):
        """Takes GOAWAY frames out: the package takes nothing after one, not even the streams that finish."""
        self.unread += data
        kept = b""
        while len(self.unread) >= 9:
            size = 9 + int.from_bytes(self.unread[:3], "big")
            if len(self.unread) < size:
                break
            frame, self.unread = self.unread[:size], self.unread[size:]
            if frame[3] == 7:
                last, code = (int.from_bytes(frame[at : at + 4], "big") for at in (9, 13))
                self.goaway = {"code": code, "last": last & 0x7FFFFFFF}
            else:
                kept += frame
        return kept

    def take(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is None:
            return
        if isinstance(event, h2.events.InformationalResponseReceived):
            stream["interim"].append(dict(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            stream["head"] = event.headers
        elif isinstance(event, h2.events.DataReceived):
            stream["body"] += event.data
            if self.acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            stream["trailers"] = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            stream["reset"] = int(event.error_code)
        elif isinstance(event, h2.events.StreamEnded):
            stream["ended"] = True

    def until(self, done):
        limit = time.monotonic() + PATIENCE
        while not done() and not self.closed:
            if time.monotonic() > limit:
                raise TimeoutError("waited for too long")
            self.turn()

    def finish(self, stream):
        """Waits for a stream to be over, and tells what came."""
        state = self.streams[stream]
        self.until(lambda: state["ended"] or state["reset"] is not None)
        return self.told(stream)

    def told(self, stream):
        state = self.streams[stream]
        head = state["head"] or []
        return {
            "status": int(dict(head)[":status"]) if head else 0,
            "fields": [list(field) for field in head],
            "interim": state["interim"],
            "body": state["body"].decode("latin-1"),
            "length": len(state["body"]),
            "trailers": state["trailers"],
            "reset": state["reset"],
            "ended": state["ended"],
        }


def get(client, path, *fields):
    pairs = [tuple(field.split(": ", 1)) for field in fields]
    return client.finish(client.request(path, fields=pairs))


def method(client, name, path):
    return client.finish(client.request(path, method=name))


def post(client, path, size, pieces="1", length="no"):
    size, pieces = int(size), int(pieces)
    fields = [("content-length", str(size))] if length == "length" else []
    stream = client.request(path, method="POST", fields=fields, end=False)
    step = max(1, size // pieces)
    data = bytes(i % 251 for i in range(size))
    for at in range(0, size, step):
        client.send(stream, data[at : at + step], end=at + step >= size)
    return client.finish(stream)


def trailers(client, path):
    stream = client.request(path, method="POST", fields=[("te", "trailers")], end=False)
    client.send(stream, b"payload")
    client.h2.send_headers(stream, [("x-sum", "42"), ("content-length", "9")], end_stream=True)
    client.flush()
    return client.finish(stream)


def cancel(client, path, marker):
    """Resets a request once the origin has it, which it says by making the file."""
    import pathlib

    stream = client.request(path)
    limit = time.monotonic() + PATIENCE
    while not pathlib.Path(marker).exists() and time.monotonic() < limit:
        time.sleep(0.01)
    client.h2.reset_stream(stream, error_code=h2.errors.ErrorCodes.CANCEL)
    client.flush()
    return get(client, "/after")


def early(client, path):
    """Sends half of a body, and waits for the answer that does not wait for the rest."""
    stream = client.request(path, method="POST", fields=[("content-length", "100000")], end=False)
    client.send(stream, b"x" * 1000)
    state = client.streams[stream]
    client.until(lambda: state["reset"] is not None or (state["ended"] and client.closed))
    told = client.told(stream)
    told["after"] = get(client, "/after")["status"]
    return told


def many(client, path, count):
    streams = [client.request(path) for _ in range(int(count))]
    told = [client.finish(stream) for stream in streams]
    return {"statuses": [one["status"] for one in told], "bodies": [one["body"] for one in told]}


def slow(client, path, wait):
    """Reads nothing of a body until asked."""
    client.acknowledge = False
    stream = client.request(path)
    state = client.streams[stream]
    client.until(lambda: len(state["body"]) >= 65535)
    time.sleep(float(wait))
    client.socket.settimeout(0.2)
    before = len(state["body"])
    return {"before": before, "other": get_beside(client)}


def get_beside(client):
    client.socket.settimeout(PATIENCE)
    # The connection's window is used up by the other stream, unless it is larger.
    client.h2.increment_flow_control_window(1 << 20)
    client.flush()
    stream = client.request("/small")
    return client.finish(stream)["status"]


def drain(client, path):
    """Holds a stream open until a GOAWAY has come, then lets it finish."""
    held = client.request(path)
    print("holding", file=sys.stderr, flush=True)
    client.until(lambda: client.goaway is not None)
    told = client.finish(held)
    told["goaway"] = client.goaway
    client.until(lambda: client.closed)
    told["closed"] = client.closed
    return told


def until_goaway(client, path):
    """Asks again and again on one connection until it is told to leave."""
    answered = 0
    while client.goaway is None and not client.closed and answered < 1000:
        try:
            stream = client.request(path)
        except h2.exceptions.ProtocolError:
            break
        if client.finish(stream)["status"] == 200:
            answered += 1
    return {"answered": answered, "goaway": client.goaway}


def call(client, path, *fields):
    """A unary call of gRPC with an empty message."""
    more = dict(field.split(": ", 1) for field in fields)
    pairs = list({"content-type": "application/grpc", "te": "trailers", **more}.items())
    stream = client.request(path, method="POST", fields=pairs, end=False)
    client.send(stream, b"\0\0\0\0\0", end=True)
    return client.finish(stream)


def crumbs(client, path):
    fields = [("cookie", "a=1"), ("cookie", "b=2"), ("x-one", "1"), ("cookie", "c=3")]
    return client.finish(client.request(path, fields=fields))


def extended(client, path):
    """An extended CONNECT for a WebSocket that echoes (RFC 8441)."""
    client.until(lambda: client.h2.remote_settings.enable_connect_protocol == 1)
    stream = client.h2.get_next_available_stream_id()
    fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", client.authority),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("origin", "http://test"),
    ]
    client.h2.send_headers(stream, fields)
    client.streams[stream] = {"interim": [], "head": None, "body": b"", "trailers": None, "reset": None, "ended": False}
    client.flush()
    state = client.streams[stream]
    client.until(lambda: state["head"] is not None or state["reset"] is not None)
    if state["head"] is None or dict(state["head"])[":status"] != "200":
        return client.told(stream)
    echoed = []
    for payload in (b"hello", b"x" * 70000, b"again"):
        want = len(state["body"]) + len(payload)
        client.send(stream, payload)
        client.until(lambda: len(state["body"]) >= want or state["reset"] is not None)
        echoed.append(state["body"][want - len(payload) :] == payload)
    client.h2.end_stream(stream)
    client.flush()
    told = client.finish(stream)
    told["echoed"] = echoed
    del told["body"]
    return told


SCENARIOS = {
    "get": get,
    "method": method,
    "post": post,
    "trailers": trailers,
    "cancel": cancel,
    "early": early,
    "many": many,
    "slow": slow,
    "drain": drain,
    "until_goaway": until_goaway,
    "call": call,
    "crumbs": crumbs,
    "extended": extended,
}


def main():
    host, port, scenario, *arguments = sys.argv[1:]
    client = Client(host, int(port))
    print(json.dumps(SCENARIOS[scenario](client, *arguments)))


main()
