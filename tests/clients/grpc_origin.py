"""A gRPC server by grpcio, without generated code: messages are bytes.

Usage: grpc_origin.py [CERTIFICATE KEY]. Prints its port, serves until its standard input ends.

Service `test.Echo`: Unary, ServerStream, ClientStream, Bidi echo what they get; Fail ends with what it is told; Wait waits
until the call is over and says so on standard output; Meta answers with the metadata that came. Health checking and
reflection are those of grpcio.
"""

import json
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

LARGEST = 32 * 1024 * 1024


def unary(request, context):
    trailing = (("x-trailing", "t"), ("x-trailing-bin", b"\x00\xff"), ("retry_info", "r"), ("x-request-id", "own"))
    context.set_trailing_metadata(trailing)
    context.send_initial_metadata((("x-initial", "i"),))
    return request


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    count = size = 0
    for request in requests:
        count, size = count + 1, size + len(request)
    return b"%d %d" % (count, size)


def bidi(requests, context):
    for request in requests:
        yield b"echo " + request


def fail(request, context):
    told = json.loads(request)
    trailing = (("x-trailing", "t"),)
    if "size" in told:
        # Without a head of its own the status would be one: what is asked about is a trailer section.
        context.send_initial_metadata((("x-initial", "i"),))
        trailing += (("grpc-status-details-bin", b"\x07" * told["size"]),)
    context.set_trailing_metadata(trailing)
    context.abort(grpc.StatusCode[told["code"]], told["details"])


def wait(request, context):
    over = threading.Event()
    context.add_callback(over.set)
    print("waiting", flush=True)
    over.wait(30)
    print("over", flush=True)
    return b""


def begin_and_wait(request, context):
    yield b"begun"
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(30)


def meta(request, context):
    told = {"remaining": context.time_remaining(), "metadata": {}}
    for key, value in context.invocation_metadata():
        told["metadata"][key] = value if isinstance(value, str) else value.hex()
    return json.dumps(told).encode()


def main():
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32),
        options=[("grpc.max_receive_message_length", LARGEST), ("grpc.max_send_message_length", LARGEST)],
    )
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "BeginAndWait": grpc.unary_stream_rpc_method_handler(begin_and_wait),
        "Meta": grpc.unary_unary_rpc_method_handler(meta),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    status = health.HealthServicer()
    status.set("test.Echo", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "rb") as certificate, open(sys.argv[2], "rb") as key:
            secret = grpc.ssl_server_credentials([(key.read(), certificate.read())])
        port = server.add_secure_port("127.0.0.1:0", secret)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


main()
