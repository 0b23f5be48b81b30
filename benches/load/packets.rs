//! The table and chart of the XDP bench, from the JSON lines that it prints.
//!
//! The measuring itself needs the gateway's loader and root, and is a program of its own.

use crate::chart::{self, Bar, Group};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What is compared: ours and xdp-filter's.
const COMPARED: [(&str, &str); 7] = [
    ("pass, segment, everything on", "xdp-filter pass"),
    ("pass, new connection of a known source, everything on", "xdp-filter pass"),
    ("pass, new connection of an unknown source, everything on", "xdp-filter pass"),
    ("limited, packets, everything on", "xdp-filter drop"),
    ("limited, new connections, everything on", "xdp-filter drop"),
    ("banned, everything on", "xdp-filter drop"),
    ("denied by one of a million prefixes", "xdp-filter drop"),
];

/// What the ratio must not exceed.
const TARGET: f64 = 0.75;

struct Case {
    name: String,
    program: String,
    median: f64,
    least: f64,
    most: f64,
}

/// Reads the lines in `input` and writes `xdp.jsonl`, `xdp.md` and `xdp.svg`.
pub fn write(input: &Path, folder: &Path) -> Result<()> {
    let text = fs::read_to_string(input).with_context(|| format!("no {}", input.display()))?;
    let (cases, figures, skipped) = read(&text)?;
    anyhow::ensure!(!cases.is_empty(), "nothing was measured: {}", skipped.join("; "));
    fs::create_dir_all(folder)?;
    let table = markdown(&machine(), &cases, &figures, &skipped)?;
    print!("{table}");
    fs::write(folder.join("xdp.jsonl"), &text)?;
    fs::write(folder.join("xdp.md"), table)?;
    let bars = cases.iter().map(|c| Bar::named(&c.name, &c.program, c.median)).collect();
    let group = Group { title: "BPF_PROG_TEST_RUN, medians, the harness included".into(), bars };
    fs::write(folder.join("xdp.svg"), chart::draw("XDP: nanoseconds per packet (less is better)", &[group]))?;
    println!("\nwritten to {}", folder.display());
    Ok(())
}

/// What was measured beside packets: what, how much, of what.
type Figure = (String, f64, String);

fn read(text: &str) -> Result<(Vec<Case>, Vec<Figure>, Vec<String>)> {
    let (mut cases, mut figures) = (Vec::new(), Vec::new());
    let mut skipped = Vec::new();
    for line in text.lines().filter(|l| l.starts_with('{')) {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let (Some(what), Some(number)) = (value["figure"].as_str(), value["value"].as_f64()) {
            figures.push((what.to_owned(), number, value["unit"].as_str().unwrap_or_default().to_owned()));
            continue;
        }
        let name = value["case"].as_str().context("a line without a case")?.to_owned();
        let number = |key: &str| value[key].as_f64();
        match (number("ns_median"), number("ns_min"), number("ns_max")) {
            (Some(median), Some(least), Some(most)) => {
                let program = value["program"].as_str().unwrap_or("portcullis").to_owned();
                cases.push(Case { name, program, median, least, most });
            }
            _ => skipped.push(format!("{name}: {}", value["skipped"].as_str().unwrap_or("no figure"))),
        }
    }
    Ok((cases, figures, skipped))
}

/// Processor and kernel: what a helper call and a locked instruction cost differs by half between processors, and the
/// ratios with it.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let value = |key: &str| {
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.trim() == key).map_or("?", |(_, value)| value.trim())
    };
    format!(
        "{} (family {}, model {}), Linux {}",
        value("model name"),
        value("cpu family"),
        value("model"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn markdown(machine: &str, cases: &[Case], figures: &[Figure], skipped: &[String]) -> Result<String> {
    let mut text = format!(
        "# XDP: nanoseconds per packet\n\nThe kernel's own test-run of the loaded program (BPF_PROG_TEST_RUN), cases in turn, round by round.\n\
         On {machine}. The harness itself, 5 to 10 ns, is part of every figure.\n\n\
         | program | case | median | least | most |\n|---|---|---:|---:|---:|\n",
    );
    for c in cases {
        writeln!(text, "| {} | {} | {:.0} | {:.0} | {:.0} |", c.program, c.name, c.median, c.least, c.most)?;
    }
    for (ours, theirs) in COMPARED {
        let of = |name: &str| cases.iter().find(|c| c.name == name).map(|c| c.median);
        if let (Some(our), Some(their)) = (of(ours), of(theirs)) {
            let verdict = if our / their <= TARGET { "met" } else { "missed" };
            writeln!(text, "\n{ours} / {theirs}: {:.2}; target {TARGET}, {verdict}.", our / their)?;
        }
    }
    for (what, value, unit) in figures {
        writeln!(text, "\n{what}: {value:.1} {unit}.")?;
    }
    for line in skipped {
        writeln!(text, "\nNot measured: {line}.")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_gaps_are_both_reported() {
        let text = r#"noise
{"case":"pass, segment, everything on","program":"portcullis","ns_median":50,"ns_min":48,"ns_max":90,"rounds":15}
{"figure":"a list","value":12.34,"unit":"ms"}
{"case":"xdp-filter pass","program":"xdp-filter","ns_median":80,"ns_min":78,"ns_max":99,"rounds":15}
{"case":"xdp-filter drop","skipped":"no object"}
"#;
        let (cases, figures, skipped) = read(text).unwrap();
        let table = markdown("a machine", &cases, &figures, &skipped).unwrap();
        assert!(table.contains("On a machine. The harness"), "{table}");
        assert!(table.contains("| portcullis | pass, segment, everything on | 50 | 48 | 90 |"), "{table}");
        assert!(table.contains("everything on / xdp-filter pass: 0.62; target 0.75, met."), "{table}");
        assert!(table.contains("a list: 12.3 ms."), "{table}");
        assert!(table.contains("Not measured: xdp-filter drop: no object."), "{table}");
    }
}
