"""A gRPC server with the health service and nothing else, and its status in the hands of whoever runs it.

Prints its port. Each line on standard input is the status of the service shop.Orders from then on: SERVING, NOT_SERVING
or SERVICE_UNKNOWN, for which it is forgotten.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    statuses = health_pb2.HealthCheckResponse.ServingStatus
    servicer.set("shop.Orders", statuses.Value("SERVING"))
    server.start()
    print(port, flush=True)
    for line in sys.stdin:
        servicer.set("shop.Orders", statuses.Value(line.strip()))
    server.stop(0)


if __name__ == "__main__":
    main()
