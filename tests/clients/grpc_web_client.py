"""Calls of gRPC-Web through the gateway, as a browser's library makes them.

Usage: grpc_web_client.py ADDRESS WIRE VERSION. WIRE is `binary` or `text`, VERSION is 1 or 2. Prints one JSON object.
"""

import base64
import json
import struct
import sys

import httpx

address, wire, version = sys.argv[1:]
TEXT = wire == "text"
MEDIA_TYPE = "application/grpc-web-text+proto" if TEXT else "application/grpc-web+proto"


def decoded(body):
    """Base64 whose parts are padded each."""
    out = b""
    while body:
        end = body.find(b"=")
        end = len(body) if end < 0 else (end + 4) // 4 * 4
        out += base64.b64decode(body[:end], validate=True)
        body = body[end:]
    return out


def frames(body):
    messages, trailers = [], None
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        content, body = body[5 : 5 + length], body[5 + length :]
        if flag & 0x80:
            lines = content.decode().split("\r\n")
            trailers = dict(line.split(":", 1) for line in lines if line)
            trailers = {name: value.strip() for name, value in trailers.items()}
            assert body == b"", "bytes behind the trailers"
        else:
            messages.append(content)
    return messages, trailers


def call(client, method, message, fields=()):
    body = struct.pack(">BI", 0, len(message)) + message
    if TEXT:
        # In two parts, each padded.
        body = base64.b64encode(body[:4]) + base64.b64encode(body[4:])
    headers = {"content-type": MEDIA_TYPE, "x-grpc-web": "1", "accept": MEDIA_TYPE, **dict(fields)}
    answer = client.post(f"http://{address}/test.Echo/{method}", content=body, headers=headers)
    messages, trailers = frames(decoded(answer.content) if TEXT else answer.content)
    if trailers is None:
        trailers = {name: value for name, value in answer.headers.items() if name.startswith("grpc-")}
    return {
        "http": answer.http_version,
        "status": answer.status_code,
        "type": answer.headers.get("content-type"),
        "origin": answer.headers.get("access-control-allow-origin"),
        "messages": [message.decode("latin-1") for message in messages],
        "trailers": trailers,
    }


with httpx.Client(http1=version == "1", http2=version == "2", trust_env=False, timeout=20) as client:
    large = call(client, "Unary", b"x" * 300_000)
    print(
        json.dumps(
            {
                "unary": call(client, "Unary", b"hello"),
                "large": [len(message) for message in large["messages"]] + [large["trailers"].get("grpc-status")],
                "stream": call(client, "ServerStream", b"3"),
                "fail": call(client, "Fail", b'{"code": "NOT_FOUND", "details": "not here"}'),
                "deadline": call(client, "Wait", b"", [("grpc-timeout", "300m")]),
            }
        )
    )
