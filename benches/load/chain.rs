//! What the plugins of a usual chain cost: the same requests to a route that has them and to one that has none.
//!
//! Both routes are Portcullis's own, on one listener of one process, told apart by host, and measured in turn. The
//! plugins wait for nothing, so what they cost is user time; the difference of all CPU time is given beside it, since
//! it is counted exactly and the split is not.

use crate::child::{Child, free_address};
use crate::proxies::{self, Lab, portcullis};
use crate::rounds::{Options, account_for};
use crate::scenario::Scenario;
use crate::wrk;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

/// The two routes by the host of their requests.
pub const ROUTES: [&str; 2] = ["bare", "chain"];
/// Most microseconds of user time that the plugins may add to a request.
pub const TARGET: f64 = 3.0;

pub fn measure(options: &Options, lab: &Lab, tokens: &[String]) -> Result<Value> {
    println!("{}: {}", Scenario::Chain.name(), Scenario::Chain.title());
    let address = free_address()?;
    let mut child = start(lab, address)?;
    check(address, tokens.first().context("a token")?)?;
    let script = wrk::script(&lab.folder, Scenario::Chain.name(), &Scenario::Chain.requests(tokens))?;
    let mut samples: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for round in 0..=options.rounds {
        for turn in 0..ROUTES.len() {
            let route = ROUTES[(turn + round as usize) % ROUTES.len()];
            // The first round fills pools and caches and is not kept.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let (url, host) = (format!("http://{address}/small"), format!("Host: {}", host(route)));
            let sample = account_for(&mut child, || wrk::run(&script, &url, seconds, &[&host]))
                .with_context(|| format!("{route}, round {round}"))?;
            if round > 0 {
                println!("  {round:2} {route:10} {}", sample.line());
                samples.entry(route).or_default().push(sample.json());
            }
        }
    }
    Ok(json!({ "title": Scenario::Chain.title(), "rounds": samples }))
}

fn host(route: &str) -> String {
    if route == ROUTES[0] { format!("{route}.test") } else { portcullis::TOKENS_HOST.to_owned() }
}

fn start(lab: &Lab, address: SocketAddr) -> Result<Child> {
    let bare = format!(
        "      - name: bare\n        hosts: [{}]\n        paths: [/]\n        strip_path: false\n",
        host(ROUTES[0])
    );
    let routes = format!("{bare}{}", portcullis::tokens_job(lab));
    let path = lab.folder.join("chain.yaml");
    fs::write(&path, portcullis::alone(lab, address, &lab.folder.join("chain.sock"), &routes))?;
    let mut child = Child::start("chain", proxies::CORE, &portcullis::command(lab, &path)?, &lab.folder)?;
    child.wait_for(address)?;
    Ok(child)
}

/// The one route lets everybody in, the other only who has a token.
fn check(address: SocketAddr, token: &str) -> Result<()> {
    let status = |route: &str, token: Option<&str>| -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5"]);
        command.args(["-H", &format!("Host: {}", host(route))]);
        if let Some(token) = token {
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        let output = command.arg(format!("http://{address}/small")).output().context("cannot start curl")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let found = [status(ROUTES[0], None)?, status(ROUTES[1], Some(token))?, status(ROUTES[1], None)?];
    ensure!(found == ["200", "200", "401"], "bare, with a token, without: {found:?}");
    Ok(())
}

/// Median over rounds of what the chain adds to a request, in microseconds: all CPU time; and user time over all
/// rounds, since its split from system time comes from ticks of 10 ms.
pub fn added(scenario: &Value) -> Option<(f64, f64)> {
    let [bare, chain] = ROUTES.map(|route| scenario["rounds"][route].as_array());
    let (bare, chain) = (bare?, chain?);
    let differences =
        bare.iter().zip(chain).filter_map(|(b, c)| Some(c["cpu_us"].as_f64()? - b["cpu_us"].as_f64()?));
    let user = |samples: &[Value]| {
        let sum = |weigh: fn(&Value) -> Option<f64>| samples.iter().filter_map(weigh).sum::<f64>();
        sum(|s| Some(s["user_us"].as_f64()? * s["requests"].as_f64()?)) / sum(|s| s["requests"].as_f64())
    };
    Some((crate::report::median(differences.collect())?, user(chain) - user(bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_taken_within_a_round() {
        let one = |cpu: f64| json!({ "cpu_us": cpu, "user_us": cpu / 2.0, "requests": 10.0 });
        let found = json!({ "rounds": {
            "bare": [one(10.0), one(20.0), one(10.0)],
            "chain": [one(12.0), one(22.0), one(16.0)],
        } });
        let (all, user) = added(&found).unwrap();
        assert_eq!(all, 2.0);
        assert!((user - 10.0 / 6.0).abs() < 1e-9, "{user}");
        assert_eq!(added(&json!({})), None);
    }
}
