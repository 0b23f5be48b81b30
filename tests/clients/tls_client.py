"""TLS connections one after another, with the session of the first offered by the others.

Usage: tls_client.py JSON, an object with `address` and optionally `sni`, `ca`, `min`, `max`
(`1.1`, `1.2`, `1.3`), `alpn` (list), `times` (connections, default 1), `target`, `legacy`
(allow what OpenSSL itself calls insecure). Prints a list, one object a connection: `version`,
`alpn`, `reused`, `names` (of the certificate), `status`, `body`, or `error`.
"""

import json
import socket
import ssl
import sys

VERSIONS = {"1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(order: dict) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    if "ca" in order:
        made.load_verify_locations(order["ca"])
    else:
        made.verify_mode = ssl.CERT_NONE
    if order.get("legacy"):
        made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version = VERSIONS[order.get("min", "1.2")]
    made.maximum_version = VERSIONS[order.get("max", "1.3")]
    if "alpn" in order:
        made.set_alpn_protocols(order["alpn"])
    return made


def talk(order: dict, made: ssl.SSLContext, session):
    host, port = order["address"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        with made.wrap_socket(plain, server_hostname=order.get("sni"), session=session) as secure:
            told = {"version": secure.version(), "alpn": secure.selected_alpn_protocol()}
            if "ca" in order:
                names = secure.getpeercert().get("subjectAltName", ())
                told["names"] = [name for _, name in names]
            request = f"GET {order.get('target', '/')} HTTP/1.1\r\nHost: {order.get('sni', 'test')}\r\n"
            secure.sendall((request + "Connection: close\r\n\r\n").encode())
            answer = b""
            while part := secure.recv(65536):
                answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            told["status"] = int(head.split(b" ")[1])
            told["body"] = body.decode()
            told["reused"] = secure.session_reused
            # Tickets of TLS 1.3 come after the handshake, so the session is taken at the end.
            return told, secure.session


def main(order: dict) -> None:
    made, session, told = context(order), None, []
    for _ in range(order.get("times", 1)):
        try:
            one, fresh = talk(order, made, session)
            session = session or fresh
        except (OSError, ssl.SSLError) as error:
            one = {"error": f"{type(error).__name__}: {error}"}
        told.append(one)
    print(json.dumps(told))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
