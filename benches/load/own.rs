//! The tables of the jobs that Portcullis does alone: the chain of plugins, and the reload.

use crate::report::median;
use crate::scenario::Scenario;
use crate::{chain, reload};
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write as _;

pub fn table(scenario: Scenario, found: &Value) -> Result<String> {
    let mut text = format!("\n## {}\n\n", scenario.title());
    match scenario {
        Scenario::Chain => chain_table(&mut text, found)?,
        _ => reload_table(&mut text, found)?,
    }
    Ok(text)
}

fn chain_table(text: &mut String, found: &Value) -> Result<()> {
    text.push_str("Portcullis alone: one process, two routes of one listener in turn, HTTP/1.1, 200 B.\n\n");
    text.push_str("| route | req/s | p50 ms | p99 ms | CPU us/req |\n|---|---:|---:|---:|---:|\n");
    for route in chain::ROUTES {
        let Some(samples) = found["rounds"][route].as_array() else { continue };
        let middle =
            |key: &str| median(samples.iter().filter_map(|s| s[key].as_f64()).collect()).unwrap_or(f64::NAN);
        let (rate, cpu) = (middle("requests_per_second"), middle("cpu_us"));
        writeln!(
            text,
            "| {route} | {rate:.0} | {:.2} | {:.2} | {cpu:.2} |",
            middle("p50_ms"),
            middle("p99_ms")
        )?;
    }
    if let Some((all, user)) = chain::added(found) {
        let verdict = verdict(user <= chain::TARGET);
        writeln!(
            text,
            "\nThe plugins add {user:.2} us of user time to a request; target {:.0} us, {verdict}. All CPU time: \
             {all:.2} us more (median of the differences within a round).",
            chain::TARGET
        )?;
    }
    Ok(())
}

fn reload_table(text: &mut String, found: &Value) -> Result<()> {
    let Some(rounds) = found["rounds"].as_array() else { return Ok(()) };
    writeln!(
        text,
        "The whole gateway on one core, one shard; 8 connections with 500 requests a second each, every request with \
         another key. The 99th percentile is taken of each quarter of a second; times count from when a request was \
         due. {:.0} MiB resident before the first reload.\n",
        found["resident_bytes"].as_f64().unwrap_or(f64::NAN) / 1048576.0
    )?;
    text.push_str(
        "| reload s | CPU s | requests | failed | p99 ms before | worst p99 ms | slowest ms | p99 doubled for ms | \
         RSS MiB |\n",
    );
    text.push_str("|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    let of = |round: &Value, key: &str| round[key].as_f64().unwrap_or(f64::INFINITY);
    for round in rounds {
        writeln!(
            text,
            "| {:.2} | {:.2} | {} | {} | {:.2} | {:.2} | {:.2} | {} | {:.0} |",
            of(round, "reload_ms") / 1000.0,
            of(round, "cpu_s"),
            round["requests"],
            round["failed"],
            of(round, "p99_before_ms"),
            of(round, "p99_worst_ms"),
            of(round, "slowest_ms"),
            round["doubled_ms"],
            of(round, "resident_bytes") / 1048576.0,
        )?;
    }
    let failed: f64 = rounds.iter().map(|round| of(round, "failed")).sum();
    let doubled = median(rounds.iter().map(|round| of(round, "doubled_ms")).collect()).unwrap_or(f64::NAN);
    writeln!(
        text,
        "\nFailed: {failed:.0}; target 0, {}. Doubled for {doubled:.0} ms (median); target {} ms, {}.",
        verdict(failed == 0.0),
        reload::TARGET_MS,
        verdict(doubled <= reload::TARGET_MS as f64),
    )?;
    Ok(())
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tables_give_their_verdicts() {
        let one = |cpu: f64| json!({ "cpu_us": cpu, "user_us": cpu / 2.0, "requests": 10.0 });
        let found = json!({ "rounds": { "bare": [one(10.0)], "chain": [one(20.0)] } });
        let text = table(Scenario::Chain, &found).unwrap();
        assert!(text.contains("add 5.00 us of user time to a request; target 3 us, missed"), "{text}");
        let round = json!({ "failed": 0, "requests": 9, "doubled_ms": 250, "reload_ms": 1500 });
        let text = table(Scenario::Reload, &json!({ "rounds": [round] })).unwrap();
        assert!(
            text.contains("Failed: 0; target 0, met. Doubled for 250 ms (median); target 1000 ms, met."),
            "{text}"
        );
    }
}
