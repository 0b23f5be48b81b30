"""A battery of HTTP/1.1 conformance checks with http.client and bare sockets.

Usage: battery.py HOST PORT. The gateway there has an echo at `/`, interim responses at `/hints`, chunks with a trailer at
`/chunks`, a body to the end of the connection at `/closing`, 204 at `/empty`. Prints one JSON object; `ok` is true when all held.
"""

import http.client
import json
import socket
import sys

HOST, PORT = sys.argv[1], int(sys.argv[2])
checks = {}


def check(function):
    try:
        checks[function.__name__] = function() is not False
    except Exception as error:  # noqa: BLE001 (what went wrong is the result)
        checks[function.__name__] = repr(error)


class Raw:
    """A bare connection, read strictly."""

    def __init__(self):
        self.socket = socket.create_connection((HOST, PORT), timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text.encode("latin1"))
        return self

    def head(self):
        line = self.file.readline()
        assert line.endswith(b"\r\n"), line
        version, status, _ = line.decode().split(" ", 2)
        assert version == "HTTP/1.1", line
        fields = []
        while (line := self.file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n") and b":" in line, line
            name, value = line[:-2].decode().split(":", 1)
            fields.append((name.lower(), value.strip()))
        return int(status), fields

    def response(self, to_head=False):
        status, fields = self.head()
        known = dict(fields)
        assert not ("content-length" in known and "transfer-encoding" in known)
        if to_head or status in (204, 304) or status < 200:
            return status, known, b"", []
        if known.get("transfer-encoding") == "chunked":
            body, trailers = b"", []
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                assert self.file.readline() == b"\r\n"
            while (line := self.file.readline()) != b"\r\n":
                trailers.append(line.decode().strip())
            return status, known, body, trailers
        if "content-length" in known:
            return status, known, self.file.read(int(known["content-length"])), []
        return status, known, self.file.read(), []

    def at_end(self):
        return self.file.read(1) == b""


def get(path, fields=""):
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"


@check
def keep_alive():
    connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
    connection.connect()
    first = connection.sock
    for number in range(200):
        connection.request("GET", f"/k/{number}")
        answer = json.load(connection.getresponse())
        assert answer["target"] == f"/k/{number}" and connection.sock is first


@check
def pipelining_keeps_the_order():
    raw = Raw()
    raw.send("".join(get(f"/p/{n}") if n % 2 else f"POST /p/{n} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab" for n in range(100)))
    for number in range(100):
        assert json.loads(raw.response()[2])["target"] == f"/p/{number}"


@check
def expect_continue():
    raw = Raw().send("PUT /e HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert raw.head() == (100, [])
    raw.send("4\r\nbody\r\n0\r\n\r\n")
    assert json.loads(raw.response()[2])["body"] == "body"
    raw.send(get("/after"))
    assert json.loads(raw.response()[2])["target"] == "/after"


@check
def expect_of_1_0_is_ignored():
    raw = Raw().send("POST /e HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\nHost: t\r\n\r\nab")
    return raw.head()[0] == 200


@check
def head_has_no_body():
    raw = Raw().send("HEAD /h HTTP/1.1\r\nHost: t\r\n\r\n" + get("/next"))
    status, fields, _, _ = raw.response(to_head=True)
    assert status == 200 and int(fields["content-length"]) > 0
    assert json.loads(raw.response()[2])["target"] == "/next"


@check
def no_content_keeps_the_connection():
    raw = Raw().send(get("/empty") + get("/next"))
    status, fields, _, _ = raw.response()
    assert status == 204 and "content-length" not in fields and "transfer-encoding" not in fields
    assert json.loads(raw.response()[2])["target"] == "/next"


@check
def interim_responses():
    raw = Raw().send(get("/hints"))
    status, fields = raw.head()
    assert status == 103 and dict(fields)["link"], fields
    assert raw.response()[2] == b"final"


@check
def no_interim_responses_for_1_0():
    raw = Raw().send("GET /hints HTTP/1.0\r\nHost: t\r\n\r\n")
    return raw.response()[0] == 200


@check
def trailers_when_they_are_taken():
    raw = Raw().send(get("/chunks", "TE: trailers\r\nConnection: TE\r\n"))
    assert raw.response()[2:] == (b"one two three", ["X-Sum: 3"])
    raw.send(get("/chunks"))
    assert raw.response()[2:] == (b"one two three", [])


@check
def chunks_both_ways():
    connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
    parts = (b"x" * size for size in (1, 10, 1000, 70000))
    connection.request("POST", "/c", body=parts, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    answer = json.load(connection.getresponse())
    assert answer["body_len"] == 71011 and dict((k.lower(), v) for k, v in answer["headers"])["transfer-encoding"] == "chunked"
    connection.request("GET", "/chunks")
    assert connection.getresponse().read() == b"one two three"


@check
def http_1_0():
    raw = Raw().send("GET /old HTTP/1.0\r\n\r\n")
    status, fields, body, _ = raw.response()
    assert status == 200 and "transfer-encoding" not in fields and json.loads(body)["version"] == "HTTP/1.1"
    assert raw.at_end()
    raw = Raw().send("GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert raw.response()[2] == b"one two three" and raw.at_end()
    raw = Raw().send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert raw.response()[1]["connection"] == "keep-alive" and raw.response()[0] == 200


@check
def connection_close():
    raw = Raw().send(get("/bye", "Connection: close\r\n") + get("/ignored"))
    assert raw.response()[1]["connection"] == "close" and raw.at_end()
    raw = Raw().send(get("/bye", "Connection: foo, CLOSE , bar\r\n"))
    assert raw.response()[1]["connection"] == "close" and raw.at_end()


@check
def a_body_to_the_end():
    raw = Raw().send(get("/closing") + get("/next"))
    assert raw.response()[2] == b"to the end"
    assert json.loads(raw.response()[2])["target"] == "/next"


@check
def large_headers():
    connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
    fields = {f"x-{n}": "v" * 300 for n in range(90)}
    connection.request("GET", "/large", headers=fields)
    answer = json.load(connection.getresponse())
    assert sum(name.lower().startswith("x-") and len(value) == 300 for name, value in answer["headers"]) == 90
    connection.request("GET", "/larger", headers={"x": "v" * 40000})
    assert connection.getresponse().status == 431


@check
def a_request_in_single_bytes():
    raw = Raw()
    for byte in "POST /slow HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
        raw.send(byte)
    assert json.loads(raw.response()[2])["body"] == "abc"


@check
def options_of_the_server():
    raw = Raw().send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n" + get("/next"))
    status, fields, _, _ = raw.response()
    assert status == 200 and "GET" in fields["allow"]
    assert json.loads(raw.response()[2])["target"] == "/next"


@check
def max_forwards():
    raw = Raw().send("OPTIONS /m HTTP/1.1\r\nHost: t\r\nMax-Forwards: 0\r\n\r\n")
    status, fields, _, _ = raw.response()
    assert status == 200 and "GET" in fields["allow"]
    raw.send("OPTIONS /m HTTP/1.1\r\nHost: t\r\nMax-Forwards: 5\r\n\r\n")
    answer = json.loads(raw.response()[2])
    assert dict((k.lower(), v) for k, v in answer["headers"])["max-forwards"] == "4"


@check
def a_date_in_every_answer():
    raw = Raw().send(get("/d"))
    return "date" in raw.response()[1]


@check
def upgrades_are_ignored():
    raw = Raw().send(get("/u", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"))
    status, _, body, _ = raw.response()
    names = [name.lower() for name, _ in json.loads(body)["headers"]]
    assert status == 200 and "upgrade" not in names and "http2-settings" not in names


@check
def ten_thousand_requests():
    raw = Raw()
    for batch in range(100):
        raw.send(get("/empty") * 100)
        for number in range(100):
            status, fields = raw.head()
            last = batch == 99 and number == 99
            assert status == 204 and (dict(fields).get("connection") == "close") == last, (batch, number)
    assert raw.at_end()


print(json.dumps({"ok": all(value is True for value in checks.values()), "checks": checks}))
