//! The measuring: proxies in turn, round by round, and what is kept of it.

use crate::child::{Child, free_address};
use crate::proxies::{self, Lab, Proxy, Running};
use crate::scenario::Scenario;
use crate::{account, certs, chain, check, h2load, idle, reload, report, tokens, wrk};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
pub struct Options {
    /// Proxies to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "portcullis,nginx,haproxy")]
    proxies: Vec<Proxy>,
    /// Jobs to run; all where none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Rounds that count; one more goes before them to warm up
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub rounds: u32,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub seconds: u32,
    /// nginx and HAProxy tell the origin X-Forwarded-For alone, and the client nothing: less work than Portcullis has
    #[arg(long)]
    bare: bool,
    /// The gateway's binary
    #[arg(long)]
    portcullis: Option<PathBuf>,
    /// Folder of configurations and logs
    #[arg(long, default_value = "target/load")]
    work: PathBuf,
    /// Folder of the results
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

/// One proxy in one round.
pub struct Sample {
    found: wrk::Found,
    cpu: account::Cpu,
    resident: u64,
    /// How busy the two cores were, 0 to 1.
    busy: [f64; 2],
}

pub fn run(options: &Options) -> Result<()> {
    let cores = account::cores().len();
    anyhow::ensure!(
        cores >= 2,
        "two cores are needed, one for the proxy and one for the rest; here is {cores}"
    );
    fs::create_dir_all(&options.work)?;
    let folder = options.work.canonicalize()?;
    let names = ["localhost", "127.0.0.1", "tokens.test"].map(str::to_owned);
    let files = certs::make(&folder, &names)?;
    let tokens = tokens::make(&files.token_key)?;
    let (origin, address) = start_origin(&folder)?;
    let portcullis = options.portcullis.as_ref().map(|p| p.canonicalize()).transpose()?;
    let scenarios = if options.scenarios.is_empty() { &Scenario::ALL[..] } else { &options.scenarios };
    let with_tokens = scenarios.contains(&Scenario::Tokens);
    let lab = Lab { folder, files, origin: address, with_tokens, bare: options.bare, portcullis };

    let mut running = Vec::new();
    if scenarios.iter().any(|s| s.is_side_by_side()) {
        for proxy in &options.proxies {
            running.push(proxies::start(*proxy, &lab)?);
        }
    }
    let mut results = serde_json::Map::new();
    for scenario in scenarios.iter().filter(|s| s.is_side_by_side()) {
        println!("{}: {}", scenario.name(), scenario.title());
        results.insert(scenario.name().into(), measure(*scenario, options, &mut running, &lab, &tokens)?);
    }
    drop(running);
    if scenarios.contains(&Scenario::Idle) {
        results.insert(Scenario::Idle.name().into(), measure_idle(options, &lab)?);
    }
    if scenarios.contains(&Scenario::Chain) {
        results.insert(Scenario::Chain.name().into(), chain::measure(options, &lab, &tokens)?);
    }
    if scenarios.contains(&Scenario::Reload) {
        results.insert(Scenario::Reload.name().into(), reload::measure(options, &lab)?);
    }
    drop(origin);
    let conditions = conditions(options, &lab);
    let scenarios = merged(&options.results, &conditions, results);
    report::write(&options.results, &json!({ "conditions": conditions, "scenarios": scenarios }))
}

fn start_origin(folder: &Path) -> Result<(Child, std::net::SocketAddr)> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["origin", &address.to_string()]);
    let mut origin = Child::start("origin", wrk::CORE, &command, folder)?;
    origin.wait_for(address)?;
    Ok((origin, address))
}

/// All rounds of one scenario, as JSON: a list of samples for each proxy, the same round at the same index.
fn measure(
    scenario: Scenario,
    options: &Options,
    running: &mut [Running],
    lab: &Lab,
    tokens: &[String],
) -> Result<Value> {
    let script = wrk::script(&lab.folder, scenario.name(), &scenario.requests(tokens))?;
    let taking_part: Vec<usize> = (0..running.len()).filter(|n| scenario.suits(running[*n].proxy)).collect();
    for n in &taking_part {
        check::run(scenario, &running[*n], lab, tokens)?;
    }
    let mut samples: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for round in 0..=options.rounds {
        for n in order(&taking_part, round) {
            // The first round fills pools and caches and is not kept.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let proxy = running[n].proxy.name();
            let sample = sample(scenario, &mut running[n], &lab.folder, &script, seconds)
                .with_context(|| format!("{proxy}, round {round}"))?;
            if round > 0 {
                println!("  {round:2} {proxy:10} {}", sample.line());
                samples.entry(proxy).or_default().push(sample.json());
            }
        }
    }
    Ok(json!({ "title": scenario.title(), "rounds": samples }))
}

/// The order of a round: rotated by one each time, and reversed every other time, so that no proxy always
/// follows the same other one.
fn order(taking_part: &[usize], round: u32) -> Vec<usize> {
    let mut order = taking_part.to_vec();
    if order.is_empty() {
        return order;
    }
    let by = round as usize % order.len();
    order.rotate_left(by);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn sample(
    scenario: Scenario,
    running: &mut Running,
    folder: &Path,
    script: &Path,
    seconds: u32,
) -> Result<Sample> {
    let door = scenario.door();
    let url = check::url(door, running.doors.get(door), scenario.path());
    let host = format!("Host: {}", check::host(door));
    let mut headers = vec![host.as_str()];
    headers.extend(scenario.headers());
    account_for(&mut running.child, || match scenario {
        Scenario::Http2 => h2load::run(folder, &url, seconds),
        _ => wrk::run(script, &url, seconds, &headers),
    })
}

/// What `child` needed while `load` ran.
pub fn account_for(child: &mut Child, load: impl FnOnce() -> Result<wrk::Found>) -> Result<Sample> {
    child.alive()?;
    let (cores, before) = (account::cores(), account::cpu(child.pid())?);
    let found = load()?;
    let (after, cores_after) = (account::cpu(child.pid())?, account::cores());
    anyhow::ensure!(found.requests > 0.0, "no request was answered");
    let busy = [proxies::CORE, wrk::CORE].map(|n| (cores_after[n] - cores[n]) / found.seconds);
    Ok(Sample { found, cpu: after - before, resident: account::resident(child.pid()), busy })
}

impl Sample {
    /// CPU seconds per million requests, which is microseconds per request.
    fn per_million(&self, seconds: f64) -> f64 {
        seconds / self.found.requests * 1e6
    }

    pub fn line(&self) -> String {
        format!(
            "{:8.0} req/s  {:7.2} us/req  p50 {:6.2} ms  p99 {:6.2} ms  cores {:.2} {:.2}  errors {}",
            self.found.requests / self.found.seconds,
            self.per_million(self.cpu.total),
            self.found.p50,
            self.found.p99,
            self.busy[0],
            self.busy[1],
            self.found.errors,
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "requests": self.found.requests,
            "seconds": self.found.seconds,
            "requests_per_second": self.found.requests / self.found.seconds,
            "p50_ms": self.found.p50,
            "p99_ms": self.found.p99,
            "errors": self.found.errors,
            "cpu_us": self.per_million(self.cpu.total),
            "user_us": self.per_million(self.cpu.user),
            "system_us": self.per_million(self.cpu.system),
            "resident_bytes": self.resident,
            "busy": self.busy,
            // Time on core 0 that was not the proxy's: above a few percent the machine was not quiet.
            "foreign": (self.busy[0] - self.cpu.total / self.found.seconds).max(0.0),
        })
    }
}

fn measure_idle(options: &Options, lab: &Lab) -> Result<Value> {
    println!("{}: {}", Scenario::Idle.name(), Scenario::Idle.title());
    let mut bytes = serde_json::Map::new();
    for proxy in &options.proxies {
        let per_connection = idle::measure(*proxy, lab).with_context(|| proxy.name())?;
        println!("     {:10} {:8.2} KiB per connection", proxy.name(), per_connection / 1024.0);
        bytes.insert(proxy.name().into(), json!(per_connection));
    }
    Ok(json!({ "title": Scenario::Idle.title(), "bytes_per_connection": bytes }))
}

fn conditions(options: &Options, lab: &Lab) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let versions: serde_json::Map<String, Value> =
        options.proxies.iter().map(|p| (p.name().to_owned(), json!(proxies::version(*p, lab)))).collect();
    json!({
        "unix_time": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processor": processor.map_or("unknown", |p| p.1),
        "cores": account::cores().len(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": wrk::CONNECTIONS,
        "versions": versions,
        "bare": options.bare,
    })
}

/// A run of some scenarios keeps what an earlier run found for the others, on the same system with the
/// same programs; ratios never mix two runs, since a scenario is kept or replaced whole.
fn merged(results: &Path, conditions: &Value, new: serde_json::Map<String, Value>) -> Value {
    let text = fs::read_to_string(results.join("load.json")).unwrap_or_default();
    let old: Value = serde_json::from_str(&text).unwrap_or_default();
    let same =
        ["kernel", "processor", "versions", "bare"].iter().all(|k| old["conditions"][k] == conditions[k]);
    let mut all = old["scenarios"].as_object().filter(|_| same).cloned().unwrap_or_default();
    all.extend(new);
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_everyone_and_the_first_place_moves() {
        let firsts: Vec<usize> = (0..6).map(|r| order(&[0, 1, 2], r)[0]).collect();
        for n in 0..3 {
            assert!(firsts.contains(&n), "{firsts:?}");
        }
        for round in 0..6 {
            let mut all = order(&[0, 1, 2], round);
            all.sort();
            assert_eq!(all, [0, 1, 2]);
        }
        assert!(order(&[], 1).is_empty());
    }
}
