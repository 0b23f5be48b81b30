"""A scan of one TLS listener with sslyze, against one of Mozilla's recommendations.

Usage: tls_scan.py IP PORT NAME CA PROFILE, with PROFILE `modern` or `intermediate`. Prints an object: `issues` (what
the recommendation has against the listener, by subject), `errors` (scans that did not finish), `versions` (those
spoken), `suites`, `curves`, `early_data`, `renegotiation` (whether a client may).
"""

import json
import sys
from pathlib import Path

from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER,
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

VERSIONS = {
    "ssl_2_0_cipher_suites": "SSL 2.0",
    "ssl_3_0_cipher_suites": "SSL 3.0",
    "tls_1_0_cipher_suites": "TLS 1.0",
    "tls_1_1_cipher_suites": "TLS 1.1",
    "tls_1_2_cipher_suites": "TLS 1.2",
    "tls_1_3_cipher_suites": "TLS 1.3",
}


def main(ip: str, port: str, name: str, authority: str, profile: str) -> None:
    location = ServerNetworkLocation(hostname=name, port=int(port), ip_address=ip)
    commands = set(SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER)
    # Not of resumption: sslyze takes a fresh ticket in a resumed session, which a server may give, for a full handshake.
    commands |= {ScanCommand.TLS_1_3_EARLY_DATA}
    request = ServerScanRequest(
        server_location=location,
        network_configuration=ServerNetworkConfiguration(tls_server_name_indication=name, network_timeout=20),
        scan_commands=commands,
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(custom_ca_file=Path(authority))
        ),
    )
    scanner = Scanner()
    scanner.queue_scans([request])
    result = next(iter(scanner.get_results()))
    if result.scan_result is None:
        print(json.dumps({"issues": {}, "errors": [str(result.connectivity_error_trace)]}))
        return
    scan = result.scan_result
    attempts = {command.value: getattr(scan, command.value) for command in commands}
    errors = [f"{name}: {one.error_reason}" for name, one in attempts.items() if one.result is None]
    issues = {}
    if not errors:
        try:
            wanted = MozillaTlsConfiguration.get(TlsConfigurationEnum(profile))
            check_server_against_tls_configuration(result, wanted)
        except ServerNotCompliantWithTlsConfiguration as refusal:
            issues = refusal.issues
    told = {"issues": issues, "errors": errors}
    if not errors:
        accepted = {field: getattr(scan, field).result.accepted_cipher_suites for field in VERSIONS}
        told["versions"] = [VERSIONS[field] for field, suites in accepted.items() if suites]
        told["suites"] = sorted({one.cipher_suite.name for suites in accepted.values() for one in suites})
        told["curves"] = sorted(curve.name for curve in scan.elliptic_curves.result.supported_curves or [])
        told["early_data"] = scan.tls_1_3_early_data.result.supports_early_data
        told["renegotiation"] = scan.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
