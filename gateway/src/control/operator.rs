//! What an operator says and asks about sources: `ban`, `unban`, `bans`, `why`, `drops`.
//!
//! Owns what these print, and their exit codes: 1 when the gateway refuses. Never: a runtime, or a decision; the other
//! end is [`super::operate`].

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portcullis_config::units::{Bare, parse_duration};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cli::Format;
use super::client::{self, Answer};
use super::commands::print;
use super::ledger::{Bans, Drops, Sample};
use super::operate::BanRequest;
use super::pcapng::Capture;
use crate::log::date_time;

/// A ban without `--for`.
pub const BAN_DEFAULT: &str = "1h";

/// Bans a source for a while.
pub fn ban(socket: &Path, source: &str, time: Duration, reason: &str) -> Result<ExitCode> {
    let request = BanRequest { source: source.into(), seconds: time.as_secs(), reason: reason.into() };
    let body = serde_json::to_string(&request).context("the order")?;
    let answer = client::ask_with(socket, "POST", "/bans", &body)?;
    if answer.status != 201 {
        return Ok(complain(&answer));
    }
    let ban: Value = read(&answer)?;
    let (source, seconds, by) = (text(&ban["source"]), &ban["seconds_left"], text(&ban["enforced_by"]));
    print(&format!("banned {source} for {seconds} s; refused by {by}\n"));
    Ok(ExitCode::SUCCESS)
}

/// Ends a ban.
pub fn unban(socket: &Path, source: &str) -> Result<ExitCode> {
    let answer = client::ask(socket, "DELETE", &format!("/bans?source={}", escaped(source)))?;
    if answer.status != 204 {
        return Ok(complain(&answer));
    }
    print(&format!("{source} is no longer banned\n"));
    Ok(ExitCode::SUCCESS)
}

/// Lists the bans in force.
pub fn bans(socket: &Path, format: Format) -> Result<ExitCode> {
    let answer = client::ask(socket, "GET", "/bans")?;
    match format {
        Format::Json => print(&(answer.body + "\n")),
        Format::Text => print(&bans_text(&read(&answer)?)),
    }
    Ok(ExitCode::SUCCESS)
}

fn bans_text(bans: &Bans) -> String {
    if bans.bans.is_empty() {
        return "nobody is banned\n".into();
    }
    let heading = ["SOURCE", "LEFT", "LEVEL", "BY", "REASON", "REFUSED BY"].map(ToOwned::to_owned);
    let row = |ban: &super::ledger::Ban| {
        [
            ban.source.clone(),
            time_text(ban.seconds_left),
            ban.level.to_string(),
            ban.by.clone(),
            if ban.reason.is_empty() { "-".into() } else { ban.reason.clone() },
            ban.enforced_by.clone(),
        ]
    };
    let mut text = table(std::iter::once(heading).chain(bans.bans.iter().map(row)));
    if bans.more {
        text += "and more\n";
    }
    text
}

/// Tells all that is known of a source.
pub fn why(socket: &Path, address: IpAddr, format: Format) -> Result<ExitCode> {
    let answer = client::ask(socket, "GET", &format!("/why?address={}", escaped(&address.to_string())))?;
    if answer.status != 200 {
        return Ok(complain(&answer));
    }
    match format {
        Format::Json => print(&(answer.body + "\n")),
        Format::Text => print(&why_text(&read(&answer)?)),
    }
    Ok(ExitCode::SUCCESS)
}

/// For people; what an older gateway does not tell is not shown.
fn why_text(why: &Value) -> String {
    let mut lines =
        vec![format!("{} ({}): {}", text(&why["address"]), text(&why["source"]), text(&why["verdict"]))];
    let list = |key: &str| why[key].as_array().cloned().unwrap_or_default();
    match &why["trusted"] {
        Value::Null => lines.push("trusted: no".into()),
        trusted => {
            lines.push(format!("trusted: {} ({})", text(&trusted["because"]), text(&trusted["prefix"])))
        }
    }
    for bucket in list("buckets") {
        let mut line = format!("bucket of {} of {}: ", text(&bucket["bucket"]), text(&bucket["scope"]));
        line += &match bucket["tokens_left"].as_u64() {
            Some(left) => {
                format!("{left} of {} tokens left ({})", bucket["tokens_max"], text(&bucket["limit"]))
            }
            None => "no limit".into(),
        };
        if bucket["debt_ms"].as_u64().is_some_and(|debt| debt > 0) {
            line += &format!(", the next in {} ms", bucket["debt_ms"]);
        }
        lines.push(line);
    }
    for mark in list("marks") {
        lines.push(format!("mark: {} until {}", text(&mark["mark"]), clock_text(mark["until"].as_u64())));
    }
    let ban = &why["ban"];
    lines.push(match ban["source"].as_str() {
        None => "ban: none".into(),
        Some(source) => format!(
            "ban: {source} by {} for {} more, until {}, level {}: {}",
            text(&ban["by"]),
            time_text(ban["seconds_left"].as_u64().unwrap_or(0)),
            clock_text(ban["until"].as_u64()),
            ban["level"],
            text(&ban["reason"])
        ),
    });
    for rule in list("rules") {
        let decides = if rule["decides"] == true { ", which decides" } else { "" };
        lines.push(format!(
            "rule: {} {} from {}{decides}",
            text(&rule["list"]),
            text(&rule["prefix"]),
            text(&rule["from"])
        ));
    }
    for limit in list("limits") {
        lines.push(format!("limit: {} ({})", text(&limit["limit"]), text(&limit["mode"])));
    }
    lines.push(format!("connections open: {}", why["connections"]));
    for refusal in list("refusals") {
        let mut line = format!("refused {} s ago: {}", refusal["seconds_ago"], text(&refusal["reason"]));
        if refusal["status"] != 0 {
            line += &format!(", status {}", refusal["status"]);
        }
        if let Some(route) = refusal["route"].as_str() {
            line += &format!(", route {route}");
        }
        lines.push(line);
    }
    for sample in list("dropped") {
        if let Ok(sample) = serde_json::from_value::<Sample>(sample) {
            lines.push(format!("dropped: {}", sample_line(&sample)));
        }
    }
    lines.join("\n") + "\n"
}

/// How `drops` goes about it.
#[derive(Clone, Debug, Default)]
pub struct DropsPlan {
    /// Goes on until interrupted, or until `count` is reached.
    pub follow: bool,
    pub count: Option<u64>,
    pub pcap: Option<PathBuf>,
}

/// Shows sampled packets that the kernel part dropped, or writes them to a file.
pub fn drops(socket: &Path, plan: &DropsPlan) -> Result<ExitCode> {
    let mut capture = match &plan.pcap {
        None => None,
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Some(Capture::begin(BufWriter::new(file))?)
        }
    };
    let mut left = plan.count.unwrap_or(u64::MAX);
    let mut from = 0;
    while left > 0 {
        let max = left.min(ASK_MAX);
        let answer = client::ask(socket, "GET", &format!("/drops?from={from}&max={max}"))?;
        let drops: Drops = read(&answer)?;
        if let (Some(why), 0) = (&drops.none_because, from) {
            eprintln!("no packet is dropped: {why}");
            return Ok(ExitCode::FAILURE);
        }
        from = drops.next;
        left -= (drops.samples.len() as u64).min(left);
        for sample in &drops.samples {
            match &mut capture {
                Some(capture) => capture.add(sample)?,
                None => print(&(sample_line(sample) + "\n")),
            }
        }
        match (drops.samples.len() as u64 == max, plan.follow) {
            (true, _) => {}
            (false, true) => {
                // A reader of the file sees what is there so far.
                capture.as_mut().map_or(Ok(()), Capture::flush)?;
                wait(POLL);
            }
            (false, false) => break,
        }
    }
    if let (Some(mut capture), Some(path)) = (capture, &plan.pcap) {
        capture.flush()?;
        print(&format!("{} packets in {}\n", capture.packets(), path.display()));
    }
    std::io::stdout().flush().ok();
    Ok(ExitCode::SUCCESS)
}

/// Samples asked for at a time.
const ASK_MAX: u64 = 1000;
/// How often `--follow` asks.
const POLL: Duration = Duration::from_millis(250);

/// Stops the calling thread, which is a command's only one.
#[allow(clippy::disallowed_methods, reason = "a command has no shard that this could stop")]
pub fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// Time, interface, ends, protocol, length and reason.
fn sample_line(sample: &Sample) -> String {
    let Sample { at_us, interface, from, to, protocol, length, reason, .. } = sample;
    let time = clock_text(Some(at_us / 1_000_000));
    let micros = at_us % 1_000_000;
    format!("{time}.{micros:06} {interface} {from} > {to} {protocol} {length} bytes: {reason}")
}

/// A time as the configuration has them; a bare number is seconds.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    parse_duration(text, Bare::Seconds).map_err(|fault| match fault.hint {
        Some(hint) => format!("{}: {hint}", fault.message),
        None => fault.message,
    })
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    if answer.status >= 400 {
        bail!("the gateway answers {}: {}", answer.status, message(answer));
    }
    serde_json::from_str(&answer.body).context("an answer of another shape")
}

fn complain(answer: &Answer) -> ExitCode {
    eprintln!("refused: {}", message(answer));
    ExitCode::FAILURE
}

fn message(answer: &Answer) -> String {
    let told = serde_json::from_str::<Value>(&answer.body).ok();
    let told = told.and_then(|told| Some(told["message"].as_str()?.to_owned()));
    told.unwrap_or_else(|| format!("status {}", answer.status))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Percent-encoding of all but what addresses are made of.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-_".contains(&byte);
    let one = |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// `1 d 2 h`, in at most two units.
fn time_text(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// UTC, as in `2026-01-31 23:59:59`.
pub fn clock_text(unix: Option<u64>) -> String {
    match unix {
        Some(unix) => String::from_utf8_lossy(&date_time(unix)).replace('T', " "),
        None => "?".into(),
    }
}

/// Columns as wide as their widest cell.
pub fn table<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(parse_time(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        };
        check("90s", Some(90));
        check("45", Some(45));
        check("10m", Some(600));
        check("1h30m", Some(5400));
        ["", "m", "-1s", "1w"].into_iter().for_each(|text| check(text, None));
        assert_eq!(parse_time(BAN_DEFAULT), Ok(Duration::from_secs(3600)));
        assert_eq!(time_text(59), "59 s");
        assert_eq!(time_text(90_000), "1 d 1 h");
        assert_eq!(clock_text(Some(951_827_696)), "2000-02-29 12:34:56");
    }

    #[test]
    fn an_answer_in_words() {
        let why = json!({
            "address": "192.0.2.1", "source": "192.0.2.1", "verdict": "served", "trusted": null,
            "buckets": [{"bucket": "connections", "scope": "192.0.2.1", "limit": "5 in 1 s, burst 10",
                         "tokens_left": 0, "tokens_max": 10, "debt_ms": 12}],
            "rules": [{"list": "deny", "prefix": "192.0.2.0/24", "from": "xdp.deny[0]", "decides": true}],
            "connections": 3,
            "refusals": [{"seconds_ago": 4, "reason": "rate_limited", "status": 429, "route": "api"}],
        });
        let expected = "192.0.2.1 (192.0.2.1): served\ntrusted: no\n\
            bucket of connections of 192.0.2.1: 0 of 10 tokens left (5 in 1 s, burst 10), the next in 12 ms\n\
            ban: none\nrule: deny 192.0.2.0/24 from xdp.deny[0], which decides\nconnections open: 3\n\
            refused 4 s ago: rate_limited, status 429, route api\n";
        assert_eq!(why_text(&why), expected);
        assert!(why_text(&json!({})).contains("ban: none"));
    }

    #[test]
    fn a_list_of_bans() {
        assert_eq!(bans_text(&Bans::default()), "nobody is banned\n");
        let bans: Bans = serde_json::from_value(json!({"bans": [{
            "source": "192.0.2.1", "by": "operator", "reason": "", "until": 60, "seconds_left": 60, "level": 0,
            "enforced_by": "proxy",
        }], "more": true}))
        .unwrap();
        let text = bans_text(&bans);
        assert!(text.starts_with("SOURCE     LEFT       LEVEL  BY        REASON  REFUSED BY\n"), "{text}");
        assert!(text.ends_with("192.0.2.1  1 min 0 s  0      operator  -       proxy\nand more\n"), "{text}");
    }

    #[test]
    fn escapes() {
        assert_eq!(escaped("2001:db8::/64"), "2001:db8::/64");
        assert_eq!(escaped("a b&c"), "a%20b%26c");
    }
}
