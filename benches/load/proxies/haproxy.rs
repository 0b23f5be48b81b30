//! HAProxy: one process, one thread. Tokens are checked by its own `jwt_verify`, without Lua.

use super::{Doors, Lab, text_of};
use crate::scenario::{
    ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADERS, LIMIT_PER_MINUTE, REMOVED_REQUEST_HEADER,
    REMOVED_RESPONSE_HEADER,
};
use std::path::Path;
use std::process::Command;

pub fn config(lab: &Lab, doors: &Doors) -> String {
    let (origin, plain, tls, http2, tokens) = (lab.origin, doors.plain, doors.tls, doors.http2, doors.tokens);
    let (both, public) = (text_of(&lab.files.both), text_of(&lab.files.token_public_key));
    let set = |side: &str, headers: &[(&str, &str)]| -> String {
        headers.iter().map(|(name, value)| format!("  {side} set-header {name} {value}\n")).collect()
    };
    let added = set("http-request", &ADDED_REQUEST_HEADERS) + &set("http-response", &ADDED_RESPONSE_HEADERS);
    let (removed, removed_answer) = (REMOVED_REQUEST_HEADER.0, REMOVED_RESPONSE_HEADER);
    let told = if lab.bare { "" } else { TOLD };
    // The limit is counted over ten seconds, HAProxy's habit; the work per request is the same.
    let limit = LIMIT_PER_MINUTE / 6;
    format!(
        "global
  nbthread 1
  maxconn 4000
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
defaults
  mode http
  timeout client 300s
  timeout server 300s
  timeout connect 5s
  timeout http-keep-alive 300s
  http-reuse always
  option forwardfor
frontend plain
  bind {plain} backlog 4096
{told}  default_backend origin
frontend tls
  bind {tls} backlog 4096 ssl crt {both} alpn http/1.1
{told}  default_backend origin
frontend http2
  bind {http2} backlog 4096 ssl crt {both} alpn h2
{told}  default_backend origin
frontend tokens
  bind {tokens} backlog 4096 ssl crt {both} alpn http/1.1
  stick-table type ip size 100k expire 60s store http_req_rate(10s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {limit} }}
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{public}\") 1 }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request del-header {removed}
  http-response del-header {removed_answer}
{told}{added}  default_backend origin
backend origin
  server origin {origin} pool-max-conn 2048
"
    )
}

/// Of every frontend: unnamed defaults may not have rules.
const TOLD: &str = "  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Real-IP %[src]
  http-request set-header Via \"1.1 haproxy\"
  http-response set-header Via \"1.1 haproxy\"
  http-response set-header X-Request-Id %[unique-id]
  http-response set-header Date %[date,http_date]
";

pub fn command(config: &Path) -> Command {
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    command
}
