"""Calls by grpcio through the gateway: one scenario a run.

Usage: grpc_client.py ADDRESS SCENARIO [CA_FILE]. Prints one JSON object.
"""

import json
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

LARGEST = 32 * 1024 * 1024


class Echo:
    def __init__(self, channel):
        self.unary = channel.unary_unary("/test.Echo/Unary")
        self.server_stream = channel.unary_stream("/test.Echo/ServerStream")
        self.client_stream = channel.stream_unary("/test.Echo/ClientStream")
        self.bidi = channel.stream_stream("/test.Echo/Bidi")
        self.fail = channel.unary_unary("/test.Echo/Fail")
        self.wait = channel.unary_unary("/test.Echo/Wait")
        self.begin_and_wait = channel.unary_stream("/test.Echo/BeginAndWait")
        self.meta = channel.unary_unary("/test.Echo/Meta")


def outcome(call):
    """Status, details and trailing metadata of a call that should fail."""
    try:
        call()
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details(), "trailing": dict(error.trailing_metadata() or ())}
    return {"code": "OK"}


def kinds(channel):
    echo = Echo(channel)
    answer, call = echo.unary.with_call(b"hello")
    told = {
        "unary": answer.decode(),
        "initial": dict(call.initial_metadata()).get("x-initial"),
        "trailing": dict(call.trailing_metadata()).get("x-trailing"),
        "others": [dict(call.trailing_metadata()).get(name) for name in ("retry_info", "x-request-id")],
        "binary": dict(call.trailing_metadata()).get("x-trailing-bin", b"").hex(),
        "empty": echo.unary(b"") == b"",
        "server_stream": [int(part) for part in echo.server_stream(b"100")] == list(range(100)),
        "client_stream": echo.client_stream(iter([b"x" * 1000] * 100)).decode(),
    }
    # One message at a time: none may be held back until there are more.
    sent, come = threading.Semaphore(0), []

    def messages():
        for number in range(20):
            yield b"%d" % number
            sent.acquire(timeout=20)

    for answer in echo.bidi(messages()):
        come.append(answer.decode())
        sent.release()
    told["bidi"] = come == [f"echo {number}" for number in range(20)]
    return told


def large(channel):
    echo = Echo(channel)
    message = bytes(range(256)) * (8 * 1024 * 1024 // 256)
    pieces = [b"y" * (1024 * 1024)] * 24
    return {"unary": echo.unary(message) == message, "stream": echo.client_stream(iter(pieces)).decode()}


def many(channel):
    echo = Echo(channel)
    calls = [echo.unary.future(b"%d" % number) for number in range(300)]
    return {"right": sum(call.result() == b"%d" % number for number, call in enumerate(calls))}


def failures(channel):
    echo = Echo(channel)
    codes = ["NOT_FOUND", "INTERNAL", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"]
    told = {}
    for code in codes:
        request = json.dumps({"code": code, "details": f"50% of {code} ü"}).encode()
        told[code] = outcome(lambda: echo.fail(request))
    told["long"] = outcome(lambda: echo.fail(json.dumps({"code": "ABORTED", "details": "", "size": 20000}).encode()))
    told["long"]["trailing"] = len(told["long"]["trailing"].get("grpc-status-details-bin", b""))
    told["unknown"] = outcome(lambda: channel.unary_unary("/test.Echo/Nothing")(b""))["code"]
    return told


def deadline(channel):
    echo = Echo(channel)
    began = time.monotonic()
    told = {"wait": outcome(lambda: echo.wait(b"", timeout=0.5))}
    told["seconds"] = time.monotonic() - began
    told["begun"] = outcome(lambda: list(echo.begin_and_wait(b"", timeout=0.5)))
    return told


def meta(channel):
    echo = Echo(channel)
    sent = (("x-own", "v"), ("x-own-bin", b"\x01\xfe"), ("own_key", "u"), ("x_real_ip", "1.1.1.1"))
    return json.loads(echo.meta(b"", metadata=sent, timeout=20))


def cancel(channel):
    echo = Echo(channel)
    call = echo.wait.future(b"")
    print("calling", file=sys.stderr, flush=True)
    sys.stdin.readline()
    call.cancel()
    return {"cancelled": call.cancelled(), "after": echo.unary(b"still").decode()}


def refused(channel):
    return outcome(lambda: Echo(channel).unary(b"hello"))


def refused_large(channel):
    return outcome(lambda: Echo(channel).unary(b"x" * 100_000))


def twice(channel):
    echo = Echo(channel)
    return {"first": outcome(lambda: echo.unary(b"a")), "second": outcome(lambda: echo.unary(b"b"))}


def standard(channel):
    health = health_pb2_grpc.HealthStub(channel)
    status = health.Check(health_pb2.HealthCheckRequest(service="test.Echo")).status
    watched = next(iter(health.Watch(health_pb2.HealthCheckRequest(service="test.Echo")))).status
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    services = [service.name for answer in answers for service in answer.list_services_response.service]
    return {"health": status, "watched": watched, "services": sorted(services)}


SCENARIOS = {
    f.__name__: f
    for f in (kinds, large, many, failures, deadline, meta, cancel, refused, refused_large, twice, standard)
}


def main():
    address, scenario, *ca = sys.argv[1:]
    options = [
        ("grpc.max_receive_message_length", LARGEST),
        ("grpc.max_send_message_length", LARGEST),
        ("grpc.max_metadata_size", 64 * 1024),
        ("grpc.absolute_max_metadata_size", 64 * 1024),
        ("grpc.enable_http_proxy", 0),
    ]
    if ca:
        with open(ca[0], "rb") as file:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()), options)
    else:
        channel = grpc.insecure_channel(address, options)
    with channel:
        print(json.dumps(SCENARIOS[scenario](channel)))


main()
