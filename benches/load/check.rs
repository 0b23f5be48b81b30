//! Does every proxy do the job? Asked once of each before anything is measured: a proxy that answers
//! errors is fast.

use crate::origin;
use crate::proxies::{Lab, Running, TOLD_CLIENT, TOLD_ORIGIN};
use crate::scenario::{
    ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADERS, Door, REMOVED_REQUEST_HEADER, REMOVED_RESPONSE_HEADER,
    Scenario,
};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::process::Command;

/// Host names that the certificate covers, by door.
pub fn host(door: Door) -> &'static str {
    match door {
        Door::Plain | Door::Tls | Door::Http2 => "localhost",
        Door::Tokens => "tokens.test",
    }
}

/// One request of the scenario, seen from both ends.
pub fn run(scenario: Scenario, running: &Running, lab: &Lab, tokens: &[String]) -> Result<()> {
    let name = running.proxy.name();
    let context = || format!("{name} does not do `{}`", scenario.name());
    let body = curl(scenario, running, lab, tokens.first(), scenario.path()).with_context(context)?;
    let length = if scenario == Scenario::Large { origin::LARGE } else { origin::SMALL };
    ensure!(body.status == 200 && body.body.len() == length, "{}: {body:?}", context());
    let echo = curl(scenario, running, lab, tokens.first(), "/echo").with_context(context)?;
    // A field's value differs in letter case from proxy to proxy; names do too.
    let (sent, got) = (echo.body.to_ascii_lowercase(), echo.head.to_ascii_lowercase());
    if !lab.bare {
        for (text, names) in [(&sent, &TOLD_ORIGIN[..]), (&got, &TOLD_CLIENT[..])] {
            for name in names {
                let line = format!("\n{}:", name.to_ascii_lowercase());
                ensure!(text.matches(&line).count() == 1, "{}: no {name}, or several, in {text}", context());
            }
        }
    }
    if scenario != Scenario::Tokens {
        return Ok(());
    }
    let has = |text: &str, (name, value): (&str, &str)| {
        text.contains(&format!("{name}: {value}").to_ascii_lowercase())
    };
    for header in ADDED_REQUEST_HEADERS {
        ensure!(has(&sent, header), "{}: the origin misses {header:?} in {sent}", context());
    }
    for header in ADDED_RESPONSE_HEADERS {
        ensure!(has(&got, header), "{}: the client misses {header:?} in {got}", context());
    }
    ensure!(!has(&sent, REMOVED_REQUEST_HEADER), "{}: the origin got {REMOVED_REQUEST_HEADER:?}", context());
    let removed = format!("{REMOVED_RESPONSE_HEADER}:").to_ascii_lowercase();
    ensure!(!got.contains(&removed), "{}: the client got {removed}", context());
    // Without a token, and with one whose signature is wrong, the answer is 401.
    let refused = curl(scenario, running, lab, None, scenario.path())?;
    ensure!(refused.status == 401, "{}: no token gives {}", context(), refused.status);
    let forged = tokens.first().map(|t| forge(t));
    let refused = curl(scenario, running, lab, forged.as_ref(), scenario.path())?;
    ensure!(refused.status == 401, "{}: a forged token gives {}", context(), refused.status);
    Ok(())
}

/// The URL and the address that wrk and curl talk to.
pub fn url(door: Door, address: SocketAddr, path: &str) -> String {
    let scheme = if door == Door::Plain { "http" } else { "https" };
    format!("{scheme}://{address}{path}")
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn curl(
    scenario: Scenario,
    running: &Running,
    lab: &Lab,
    token: Option<&String>,
    path: &str,
) -> Result<Answer> {
    let door = scenario.door();
    let address = running.doors.get(door);
    let mut command = Command::new("curl");
    let version = if door == Door::Http2 { "--http2" } else { "--http1.1" };
    command.args(["-s", "-S", "-i", version, "--max-time", "5"]);
    command.arg("--cacert").arg(&lab.files.authority);
    command.args(["-H", &format!("Host: {}", host(door))]);
    command.args(["-H", &format!("{}: {}", REMOVED_REQUEST_HEADER.0, REMOVED_REQUEST_HEADER.1)]);
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let output = command.arg(url(door, address, path)).output().context("cannot start curl")?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").context("no end of head")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    Ok(Answer { status, head: format!("{head}\r\n"), body: body.to_owned() })
}

/// The same token with one character of its signature exchanged.
fn forge(token: &str) -> String {
    let mut bytes = token.as_bytes().to_vec();
    let at = bytes.len() - 20;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8_lossy(&bytes).into_owned()
}
