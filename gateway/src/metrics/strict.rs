//! A strict reader of the text format, for tests: what Prometheus would refuse or merge silently is an error.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Family {
    pub help: String,
    pub kind: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Families by name. Refuses: a family in pieces, samples without or outside their family, a series
/// twice, a malformed line, histograms that are not cumulative or whose parts disagree.
pub fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("no line feed at the end".into());
    }
    for line in text.lines() {
        let fail = |what: &str| Err(format!("{what}: {line:?}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else { return fail("no help text") };
            if families.contains_key(name) {
                return fail("a family in two pieces");
            }
            current = name.to_owned();
            families.insert(current.clone(), Family { help: help.to_owned(), ..Family::default() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return fail("no type") };
            let family = families.get_mut(name).filter(|family| family.kind.is_empty() && name == current);
            let Some(family) = family else { return fail("type without its help") };
            if !["counter", "gauge", "histogram"].contains(&kind) {
                return fail("unknown type");
            }
            family.kind = kind.to_owned();
        } else {
            let sample = sample(line).map_err(|what| format!("{what}: {line:?}"))?;
            let Some(family) = families.get_mut(&current) else { return fail("sample without a family") };
            let suffix = sample.name.strip_prefix(&current);
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !suffix.is_some_and(|suffix| suffixes.contains(&suffix)) {
                return fail("sample in another family");
            }
            let mut labels = sample.labels.clone();
            labels.sort();
            if !series.insert((sample.name.clone(), labels)) {
                return fail("a series twice");
            }
            family.samples.push(sample);
        }
    }
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        check_histogram(family).map_err(|what| format!("{name}: {what}"))?;
    }
    Ok(families)
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let name = word(&line[..end])?;
    let mut rest = &line[end..];
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("no label value")?;
            let (value, after) = quoted(after)?;
            labels.push((word(label)?, value));
            match after.as_bytes().first() {
                Some(b',') => rest = &after[1..],
                Some(b'}') => {
                    rest = &after[1..];
                    break;
                }
                _ => return Err("labels do not end".into()),
            }
        }
    }
    let number = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = match number {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().map_err(|_| "not a number")?,
    };
    Ok(Sample { name, labels, value })
}

fn word(text: &str) -> Result<String, String> {
    let good = |(i, b): (usize, u8)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit());
    if text.is_empty() || !text.bytes().enumerate().all(good) {
        return Err(format!("bad name {text:?}"));
    }
    Ok(text.to_owned())
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[i + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("bad escape".into()),
            },
            c => value.push(c),
        }
    }
    Err("quote does not end".into())
}

/// One histogram: (bound, cumulated count) by bucket, sum, count.
#[derive(Default)]
struct Group {
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

fn check_histogram(family: &Family) -> Result<(), String> {
    let mut groups: BTreeMap<Vec<(String, String)>, Group> = BTreeMap::new();
    for sample in &family.samples {
        let labels: Vec<_> = sample.labels.iter().filter(|(name, _)| name != "le").cloned().collect();
        let group = groups.entry(labels).or_default();
        if sample.name.ends_with("_bucket") {
            let le = sample.label("le").ok_or("a bucket without a bound")?;
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().map_err(|_| "bad bound")? };
            group.buckets.push((le, sample.value));
        } else if sample.name.ends_with("_sum") {
            group.sum = Some(sample.value);
        } else {
            group.count = Some(sample.value);
        }
    }
    for (labels, Group { buckets, sum, count }) in groups {
        if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return Err(format!("{labels:?}: buckets are not cumulative"));
        }
        let last = buckets.last().filter(|bucket| bucket.0 == f64::INFINITY).map(|bucket| bucket.1);
        if last.is_none() || last != count || sum.is_none() {
            return Err(format!("{labels:?}: sum, count and last bucket disagree"));
        }
    }
    Ok(())
}

#[test]
fn the_parser_refuses_what_prometheus_refuses() {
    let head = "# HELP a A.\n# TYPE a counter\n";
    assert!(parse(&format!("{head}a 1\na{{b=\"c\"}} 2\n")).is_ok());
    for bad in [
        "a 1\na 2\n",
        "b 1\n",
        "a{b=\"c} 1\n",
        "a{b=\"c\"}1\n",
        "a x\n",
        "a 1",
        "# HELP a A.\n",
        "a{b=\"\\x\"} 1\n",
    ] {
        assert!(parse(&format!("{head}{bad}")).is_err(), "{bad:?}");
    }
    let histogram = "# HELP h H.\n# TYPE h histogram\n";
    let good = "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    assert!(parse(&format!("{histogram}{good}")).is_ok());
    assert!(parse(&format!("{histogram}{}", good.replace("} 1", "} 3"))).is_err());
    assert!(parse(&format!("{histogram}{}", good.replace("count 2", "count 3"))).is_err());
}
