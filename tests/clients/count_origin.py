"""An origin on h11 on a free loopback port; serves until its standard input ends.

Usage: count_origin.py. Prints `port N` when it listens, then `METHOD TARGET BODYLENGTH` for each request that it has read
whole, and `broken` for bytes that it could not read. Answers with the target.
"""

import os
import socket
import sys
import threading

import h11


def tell(line: str) -> None:
    # One write: the threads' lines must not mix.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(peer: socket.socket) -> None:
    connection = h11.Connection(h11.SERVER)
    request, length = None, 0
    with peer:
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                tell("broken")
                return
            if event is h11.NEED_DATA:
                try:
                    data = peer.recv(65536)
                except OSError:
                    return
                if not data and request is None:
                    return
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                request, length = event, 0
            elif isinstance(event, h11.Data):
                length += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                tell(f"{request.method.decode()} {request.target.decode('latin1')} {length}")
                body = b"" if request.method == b"HEAD" else request.target
                head = h11.Response(status_code=200, headers=[("Content-Length", str(len(request.target)))])
                answer = connection.send(head) + connection.send(h11.Data(body)) if body else connection.send(head)
                peer.sendall(answer + connection.send(h11.EndOfMessage()))
                request = None
            elif event is h11.PAUSED:
                if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                    connection.start_next_cycle()
                else:
                    return
            else:
                return


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    tell(f"port {listener.getsockname()[1]}")

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
