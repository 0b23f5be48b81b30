//! The admin interface as a test uses it: HTTP over the unix socket, and Prometheus text.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::client::Response;
use crate::wire::Inbox;

/// Sends one request to an admin socket and reads the response.
///
/// # Errors
/// Of the socket, and `UnexpectedEof` when no whole response comes.
pub fn request(socket: &Path, method: &str, target: &str, body: &[u8]) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut inbox = Inbox::new(stream);
    let head = inbox.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = inbox.body(head.response_framing(method == "HEAD"))?;
    let status = head.word(1).parse().unwrap_or(0);
    Ok(Response { status, head, body, interim: Vec::new() })
}

/// One scrape: sample name with its sorted labels to value.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses Prometheus text exposition strictly.
    ///
    /// # Errors
    /// The first line that is not well formed, a repeated sample, or a sample without a type.
    pub fn parse(text: &str) -> Result<Metrics, String> {
        let mut metrics = Metrics::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').ok_or(format!("bad TYPE line {line:?}"))?;
                if metrics.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(format!("two TYPE lines of {name}"));
                }
            } else if !line.starts_with('#') {
                metrics.sample(line)?;
            }
        }
        Ok(metrics)
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or(format!("no value in {line:?}"))?;
        let value = match value {
            "+Inf" => f64::INFINITY,
            text => text.parse().map_err(|_| format!("bad value in {line:?}"))?,
        };
        let (name, labels) = match series.split_once('{') {
            None => (series, Vec::new()),
            Some((name, rest)) => {
                let rest = rest.strip_suffix('}').ok_or(format!("open brace in {line:?}"))?;
                (name, labels(rest).ok_or(format!("bad labels in {line:?}"))?)
            }
        };
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            name.strip_suffix(suffix).filter(|base| self.types.get(*base).is_some_and(|t| t == "histogram"))
        });
        if !self.types.contains_key(family.unwrap_or(name)) {
            return Err(format!("no TYPE line before {line:?}"));
        }
        if self.samples.insert(key(name, &labels), value).is_some() {
            return Err(format!("{line:?} is there twice"));
        }
        Ok(())
    }

    /// Value of one series, 0 when it is absent. Labels in any order.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.samples.get(&key(name, &labels)).copied().unwrap_or(0.0)
    }

    /// Sum over the series of `name` that have all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
        let series = self.samples.iter().filter(|(series, _)| {
            let (family, rest) = series.split_once('{').unwrap_or((series, ""));
            family == name && wanted.iter().all(|label| rest.contains(label.as_str()))
        });
        series.map(|(_, value)| value).sum()
    }

    /// Type of a metric family, when it is there.
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }

    /// All series as text, for messages and for searches.
    pub fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.samples.iter().map(|(series, value)| (series.as_str(), *value))
    }
}

fn key(name: &str, labels: &[(String, String)]) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let mut labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

fn labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut rest = rest.chars();
        loop {
            match rest.next()? {
                '"' => break,
                '\\' => value.push(match rest.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        found.push((name.to_owned(), value));
        text = rest.as_str();
        text = text.strip_prefix(',').unwrap_or(text);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_sums() {
        let text = "# HELP a x\n# TYPE a counter\na{r=\"x\",s=\"200\"} 3\na{s=\"404\",r=\"y,\\\"z\"} 4\n\
                    # TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.5\nh_count 2\n";
        let metrics = Metrics::parse(text).expect("well formed");
        assert_eq!(metrics.get("a", &[("s", "200"), ("r", "x")]), 3.0);
        assert_eq!(metrics.get("a", &[("r", "y,\"z"), ("s", "404")]), 4.0);
        assert_eq!(metrics.sum("a", &[]), 7.0);
        assert_eq!(metrics.sum("a", &[("s", "404")]), 4.0);
        assert_eq!(metrics.kind("h"), Some("histogram"));
    }

    #[test]
    fn refuses_what_a_scraper_would_refuse() {
        let bad = [
            "a 1\n",
            "# TYPE a counter\na 1\na 1\n",
            "# TYPE a counter\na{x=\"1} 1\n",
            "# TYPE a counter\na x\n",
        ];
        for text in bad {
            Metrics::parse(text).expect_err(text);
        }
    }
}
