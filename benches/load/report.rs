//! The results as JSON (everything), Markdown (tables) and SVG (charts).
//!
//! Works on the JSON alone, so that tables and charts can be made again from a kept run. Invariant: every
//! ratio is the median over rounds of a ratio within one round.

use crate::chart::{self, Bar, Group};
use crate::own;
use crate::proxies::Proxy;
use crate::scenario::Scenario;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

pub fn write(folder: &Path, all: &Value) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("load.json"), format!("{all:#}\n"))?;
    let text = markdown(all)?;
    print!("\n{text}");
    fs::write(folder.join("load.md"), text)?;
    for (file, drawing) in charts(all) {
        fs::write(folder.join(file), drawing)?;
    }
    println!("\nwritten to {}", folder.display());
    Ok(())
}

/// The numbers of one proxy in one scenario.
struct Row {
    proxy: Proxy,
    requests_per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    user: f64,
    system: f64,
    resident: f64,
    errors: f64,
}

fn rows(scenario: &Value) -> Vec<Row> {
    let of = |proxy: Proxy| {
        let samples = scenario["rounds"][proxy.name()].as_array()?;
        let middle = |key: &str| median(samples.iter().filter_map(|s| s[key].as_f64()).collect());
        let sum = |key: &str| samples.iter().filter_map(|s| s[key].as_f64()).sum::<f64>();
        let requests = sum("requests");
        // The split comes from ticks of 10 ms: only its sum over all rounds says something.
        let share = |key: &str| {
            let weigh = |s: &Value| Some(s[key].as_f64()? * s["requests"].as_f64()?);
            samples.iter().filter_map(weigh).sum::<f64>() / requests
        };
        let split = share("user_us") + share("system_us");
        let cpu = middle("cpu_us")?;
        Some(Row {
            proxy,
            requests_per_second: middle("requests_per_second")?,
            p50: middle("p50_ms")?,
            p99: middle("p99_ms")?,
            cpu,
            user: cpu * share("user_us") / split,
            system: cpu * share("system_us") / split,
            resident: middle("resident_bytes")?,
            errors: sum("errors"),
        })
    };
    Proxy::ALL.into_iter().filter_map(of).collect()
}

/// Median over rounds of Portcullis's CPU per request over the cheapest of `others` in the same round.
fn ratio(scenario: &Value, others: &[Proxy]) -> Option<f64> {
    let cpu = |proxy: Proxy, round: usize| scenario["rounds"][proxy.name()][round]["cpu_us"].as_f64();
    let rounds = scenario["rounds"][Proxy::Portcullis.name()].as_array()?.len();
    let in_round = |round| {
        let cheapest = others.iter().filter_map(|p| cpu(*p, round)).reduce(f64::min)?;
        Some(cpu(Proxy::Portcullis, round)? / cheapest)
    };
    median((0..rounds).filter_map(in_round).collect())
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn markdown(all: &Value) -> Result<String> {
    let mut text = String::from("# Side-by-side load runs\n\n");
    let c = &all["conditions"];
    let versions = c["versions"].as_object().context("no versions")?;
    let versions: Vec<&str> = versions.values().filter_map(Value::as_str).collect();
    writeln!(
        text,
        "{}, {} cores, Linux {}. {}. {} rounds of {} s, {} connections.\n",
        c["processor"].as_str().unwrap_or("?"),
        c["cores"],
        c["kernel"].as_str().unwrap_or("?"),
        versions.join(", "),
        c["rounds"],
        c["seconds"],
        c["connections"],
    )?;
    text.push_str(METHOD);
    for scenario in Scenario::ALL {
        let found = &all["scenarios"][scenario.name()];
        match scenario {
            _ if found.is_null() => {}
            Scenario::Idle => idle_table(&mut text, scenario, found)?,
            Scenario::Chain | Scenario::Reload => text.push_str(&own::table(scenario, found)?),
            _ => table(&mut text, scenario, found)?,
        }
    }
    Ok(text)
}

const METHOD: &str = "\
One worker of each proxy on core 0, wrk and the origin on core 1, loopback. Proxies alternate round by
round in rotated order. CPU is the scheduler's run time of all threads of a proxy, kernel included, per
request (microseconds per request are CPU seconds per million requests). Values are medians over rounds,
ratios are medians of the ratios within a round; below 1 Portcullis needs less. Requests per second are
bounded by core 1 where a proxy needs little: compare CPU. All proxies add the same fields to requests
(X-Forwarded-For, -Proto, -Host and -Port, X-Real-IP, X-Request-Id, Via) and responses (Date, Via,
X-Request-Id); with `--bare` nginx and HAProxy add X-Forwarded-For alone.
";

fn table(text: &mut String, scenario: Scenario, found: &Value) -> Result<()> {
    writeln!(text, "\n## {}\n", scenario.title())?;
    text.push_str(
        "| proxy | req/s | p50 ms | p99 ms | CPU us/req | user | system | RSS MiB | Portcullis / it |\n",
    );
    text.push_str("|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    let rows = rows(found);
    for row in &rows {
        let ratio = match row.proxy {
            Proxy::Portcullis => None,
            other => ratio(found, &[other]),
        };
        writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {} |",
            row.proxy.name(),
            row.requests_per_second,
            row.p50,
            row.p99,
            row.cpu,
            row.user,
            row.system,
            row.resident / 1048576.0,
            ratio.map_or_else(|| "-".into(), |r| format!("{r:.2}")),
        )?;
    }
    for row in rows.iter().filter(|r| r.errors > 0.0) {
        writeln!(text, "\n{} had {:.0} failed requests in all rounds.", row.proxy.name(), row.errors)?;
    }
    if let Some(foreign) = foreign(found).filter(|f| *f > QUIET) {
        writeln!(
            text,
            "\nNot a quiet machine: other programs took {:.0} % of core 0. Measure again.",
            foreign * 100.0
        )?;
    }
    if let (Some(ratio), Some(target)) = (ratio(found, scenario.against()), scenario.target()) {
        let verdict = if ratio <= target { "met" } else { "missed" };
        let whom = match scenario.against() {
            [only] => only.name(),
            _ => "the better of the others",
        };
        writeln!(text, "\nAgainst {whom}: {ratio:.2}; target {target:.2}, {verdict}.")?;
    }
    Ok(())
}

/// Share of core 0 that other programs may take; interrupts of the network are a part of it.
const QUIET: f64 = 0.10;

/// Mean share of core 0 that went to neither proxy.
fn foreign(scenario: &Value) -> Option<f64> {
    let samples = scenario["rounds"].as_object()?.values().filter_map(Value::as_array).flatten();
    let shares: Vec<f64> = samples.filter_map(|s| s["foreign"].as_f64()).collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

fn idle_table(text: &mut String, scenario: Scenario, found: &Value) -> Result<()> {
    writeln!(text, "\n## {}\n", scenario.title())?;
    text.push_str("| proxy | KiB per connection |\n|---|---:|\n");
    for (proxy, bytes) in idle(found) {
        writeln!(text, "| {} | {:.2} |", proxy.name(), bytes / 1024.0)?;
    }
    Ok(())
}

fn idle(found: &Value) -> Vec<(Proxy, f64)> {
    let of = |proxy: Proxy| Some((proxy, found["bytes_per_connection"][proxy.name()].as_f64()?));
    Proxy::ALL.into_iter().filter_map(of).collect()
}

fn charts(all: &Value) -> Vec<(&'static str, String)> {
    let group = |bars: fn(&Row) -> Bar| -> Vec<Group> {
        let each = Scenario::ALL.into_iter().map(|scenario| Group {
            title: scenario.title().to_owned(),
            bars: rows(&all["scenarios"][scenario.name()]).iter().map(bars).collect(),
        });
        each.filter(|g| !g.bars.is_empty()).collect()
    };
    let cpu = group(|r| Bar::split(r.proxy.name(), [("user", r.user), ("kernel", r.system)]));
    let rate = group(|r| Bar::plain(r.proxy.name(), r.requests_per_second));
    let latency = group(|r| Bar::split(r.proxy.name(), [("p50", r.p50), ("p99", (r.p99 - r.p50).max(0.0))]));
    let idle = idle(&all["scenarios"][Scenario::Idle.name()]);
    let idle = vec![Group {
        title: Scenario::Idle.title().to_owned(),
        bars: idle.iter().map(|(p, bytes)| Bar::plain(p.name(), bytes / 1024.0)).collect(),
    }];
    vec![
        ("cpu.svg", chart::draw("CPU per request, microseconds (less is better)", &cpu)),
        ("rate.svg", chart::draw("Requests per second (more is better; core 1 bounds it)", &rate)),
        ("latency.svg", chart::draw("Latency, milliseconds: median, and to the 99th percentile", &latency)),
        ("idle.svg", chart::draw("Resident memory of an idle connection, KiB (less is better)", &idle)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn samples(cpu: &[f64]) -> Value {
        let one = |cpu: &f64| {
            json!({ "requests": 10.0, "requests_per_second": 5.0, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 0.0,
                "cpu_us": cpu, "user_us": cpu * 0.25, "system_us": cpu * 0.75, "resident_bytes": 1048576, "foreign": 0.5 })
        };
        cpu.iter().map(one).collect()
    }

    fn found() -> Value {
        // The machine slows down by a half in the second round: ratios within a round do not see it.
        json!({ "rounds": {
            "portcullis": samples(&[5.0, 10.0, 5.0]),
            "nginx": samples(&[10.0, 20.0, 10.0]),
            "haproxy": samples(&[20.0, 40.0, 20.0]),
        } })
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        assert_eq!(ratio(&found(), &[Proxy::Nginx]), Some(0.5));
        assert_eq!(ratio(&found(), &[Proxy::Nginx, Proxy::Haproxy]), Some(0.5));
        assert_eq!(ratio(&found(), &[Proxy::Haproxy]), Some(0.25));
        assert_eq!(ratio(&json!({}), &[Proxy::Nginx]), None);
    }

    #[test]
    fn the_table_gives_the_verdict() {
        let all = json!({ "conditions": { "versions": {} }, "scenarios": { "plain": found() } });
        let text = markdown(&all).unwrap();
        assert!(text.contains("| nginx | 5 | 1.00 | 2.00 | 10.00 | 2.50 | 7.50 | 1.0 | 0.50 |"), "{text}");
        assert!(text.contains("0.50; target 0.70, met"), "{text}");
        assert!(text.contains("other programs took 50 % of core 0"), "{text}");
        assert!(charts(&all).iter().all(|(_, svg)| svg.starts_with("<svg") && svg.ends_with("</svg>\n")));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
