//! Portcullis: one shard on the core of the proxies; the control thread shares it.

use super::{CORE, Doors, Lab, text_of};
use crate::scenario::{
    ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADERS, LIMIT_PER_MINUTE, REMOVED_REQUEST_HEADER,
    REMOVED_RESPONSE_HEADER,
};
use crate::tokens::ISSUER;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Routes are told apart by host, as listeners share them: the token job names `tokens.test`.
pub fn config(lab: &Lab, doors: &Doors) -> String {
    let (plain, tls, http2, tokens) = (doors.plain, doors.tls, doors.http2, doors.tokens);
    let (certificate, key) = (text_of(&lab.files.certificate), text_of(&lab.files.key));
    let common = common(lab, &lab.folder.join("portcullis.sock"));
    let tokens_job = if lab.with_tokens { tokens_job(lab) } else { String::new() };
    format!(
        "_format_version: \"3.0\"
listeners:
  - name: plain
    address: {plain}
    backlog: 4096
  - name: tls
    address: {tls}
    backlog: 4096
    tls: {{ certificates: [load], default_certificate: load, min_version: \"1.3\", session_tickets: false }}
  - name: http2
    address: {http2}
    backlog: 4096
    tls: {{ certificates: [load], default_certificate: load, min_version: \"1.3\", session_tickets: false, alpn: [h2] }}
  - name: tokens
    address: {tokens}
    backlog: 4096
    tls: {{ certificates: [load], default_certificate: load, min_version: \"1.3\", session_tickets: false }}
certificates:
  - name: load
    cert_file: {certificate}
    key_file: {key}
{common}      - name: open
        paths: [/]
        strip_path: false
{tokens_job}"
    )
}

/// A Portcullis with one plain listener: `routes` are those of its only service, as list items, and what follows them.
pub fn alone(lab: &Lab, address: SocketAddr, socket: &Path, routes: &str) -> String {
    let common = common(lab, socket);
    format!(
        "_format_version: \"3.0\"
listeners:
  - name: plain
    address: {address}
    backlog: 4096
{common}{routes}"
    )
}

/// What is the same for all jobs, up to the routes.
fn common(lab: &Lab, socket: &Path) -> String {
    let (origin, socket) = (lab.origin, text_of(socket));
    format!(
        "shards:
  count: 1
  cores: [{CORE}]
xdp:
  mode: off
limits:
  requests_per_connection: 100000000
  upstream_idle_connections: 1024
timeouts:
  keep_alive: 300s
  upstream_keep_alive: 300s
admin:
  socket: {socket}
telemetry:
  access_log: {{ destination: off }}
upstreams:
  - name: origin
    targets: [{{ target: {origin} }}]
services:
  - name: origin
    host: origin
    routes:
"
    )
}

/// The route of the token job and the consumer whose key it needs.
pub fn tokens_job(lab: &Lab) -> String {
    let public = std::fs::read_to_string(&lab.files.token_public_key).unwrap_or_default();
    let public: String = public.lines().map(|line| format!("          {line}\n")).collect();
    let list = |headers: &[(&str, &str)]| -> String {
        let each: Vec<String> = headers.iter().map(|(name, value)| format!("\"{name}:{value}\"")).collect();
        each.join(", ")
    };
    let (added, added_answer) = (list(&ADDED_REQUEST_HEADERS), list(&ADDED_RESPONSE_HEADERS));
    let (removed, removed_answer) = (REMOVED_REQUEST_HEADER.0, REMOVED_RESPONSE_HEADER);
    format!(
        "      - name: tokens
        hosts: [{TOKENS_HOST}]
        paths: [/]
        strip_path: false
        plugins:
          - name: jwt
            config: {{ claims_to_verify: [exp, nbf] }}
          - name: rate-limiting
            config: {{ minute: {LIMIT_PER_MINUTE}, limit_by: ip, policy: local, hide_client_headers: true }}
          - name: request-transformer
            config:
              remove: {{ headers: [{removed}] }}
              add: {{ headers: [{added}] }}
          - name: response-transformer
            config:
              remove: {{ headers: [{removed_answer}] }}
              add: {{ headers: [{added_answer}] }}
consumers:
  - username: load
    jwt_secrets:
      - key: {ISSUER}
        algorithm: RS256
        rsa_public_key: |
{public}"
    )
}

/// The host of the token job's requests.
pub const TOKENS_HOST: &str = "tokens.test";

pub fn command(lab: &Lab, config: &Path) -> Result<Command> {
    let binary = lab.portcullis.as_ref().context("`--portcullis` names the gateway's binary")?;
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(config);
    Ok(command)
}
