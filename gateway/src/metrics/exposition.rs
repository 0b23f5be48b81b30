//! The Prometheus text format, version 0.0.4.
//!
//! Owns escaping, number formats and the rule that a family is written in one piece under one
//! `# HELP` and one `# TYPE`. Knows nothing of what is counted. Runs on the control thread only.
//!
//! Invariant: what was written parses (the strict parser of the tests reads it back).

use std::fmt::Write;

use super::histogram::Totals;
use super::names::{Kind, Metric};

/// The value of `Content-Type` for what [`Exposition::finish`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An exposition in the making.
#[derive(Debug, Default)]
pub struct Exposition {
    out: String,
    written: Vec<&'static str>,
}

impl Exposition {
    /// An empty exposition.
    pub fn new() -> Exposition {
        Exposition::default()
    }

    /// Opens a family; all its samples must be written before the next one opens. A family must be
    /// opened once only.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        debug_assert!(!self.written.contains(&metric.name), "{} is written twice", metric.name);
        self.written.push(metric.name);
        self.out.push_str("# HELP ");
        self.out.push_str(metric.name);
        self.out.push(' ');
        escape(&mut self.out, metric.help, false);
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a `String` cannot fail, here and below.
        let _ = writeln!(self.out, "\n# TYPE {} {kind}", metric.name);
        Family { out: &mut self.out, metric }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.out
    }
}

/// One family, opened by [`Exposition::family`].
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut String,
    metric: &'static Metric,
}

/// What a sample can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number, written exactly.
    Count(u64),
    /// Nanoseconds, written as seconds, exactly.
    Nanos(u64),
    /// Anything else.
    Float(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Value {
        Value::Count(count)
    }
}

impl Family<'_> {
    /// Writes one sample of a counter or gauge.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        debug_assert!(self.metric.kind != Kind::Histogram, "{} is a histogram", self.metric.name);
        self.line("", labels, None, value.into());
        self
    }

    /// Writes the buckets, the sum and the count of a histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], totals: &Totals) -> &mut Self {
        debug_assert!(self.metric.kind == Kind::Histogram, "{} is no histogram", self.metric.name);
        let mut cumulated = 0;
        for (bound_ns, count) in totals.bounds_ns.iter().zip(&totals.buckets) {
            cumulated += count;
            self.line("_bucket", labels, Some(Value::Nanos(*bound_ns)), Value::Count(cumulated));
        }
        // The count is that of the last bucket, not a cell of its own: a scrape in the middle of an
        // update must not show a histogram whose parts disagree.
        let count = totals.count();
        self.line("_bucket", labels, Some(Value::Float(f64::INFINITY)), Value::Count(count));
        self.line("_sum", labels, None, Value::Nanos(totals.sum_ns));
        self.line("_count", labels, None, Value::Count(count));
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<Value>, value: Value) {
        let out = &mut *self.out;
        out.push_str(self.metric.name);
        out.push_str(suffix);
        let mut separator = '{';
        for (name, text) in labels {
            out.push(separator);
            separator = ',';
            out.push_str(name);
            out.push_str("=\"");
            escape(out, text, true);
            out.push('"');
        }
        if let Some(le) = le {
            out.push(separator);
            separator = ',';
            out.push_str("le=\"");
            number(out, le);
            out.push('"');
        }
        if separator == ',' {
            out.push('}');
        }
        out.push(' ');
        number(out, value);
        out.push('\n');
    }
}

/// Backslash and line feed are escaped everywhere, the quote only in label values.
fn escape(out: &mut String, text: &str, in_label: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if in_label => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

fn number(out: &mut String, value: Value) {
    const NS: u64 = 1_000_000_000;
    let _ = match value {
        Value::Count(n) => write!(out, "{n}"),
        Value::Nanos(ns) if ns % NS == 0 => write!(out, "{}", ns / NS),
        Value::Nanos(ns) => {
            let written = write!(out, "{}.{:09}", ns / NS, ns % NS);
            out.truncate(out.trim_end_matches('0').len());
            written
        }
        Value::Float(f64::INFINITY) => write!(out, "+Inf"),
        Value::Float(f64::NEG_INFINITY) => write!(out, "-Inf"),
        Value::Float(n) => write!(out, "{n}"),
    };
}

#[cfg(test)]
mod tests {
    use super::super::{GatewayHistogram, names, strict};
    use super::*;

    #[test]
    fn a_family_is_written_in_one_piece() {
        let mut exposition = Exposition::new();
        exposition
            .family(&names::REQUESTS)
            .sample(&[("class", "2xx")], 7)
            .sample(&[("class", "5xx")], Value::Float(0.5));
        exposition.family(&names::GENERATION).sample(&[], 3);
        let help = names::REQUESTS.help;
        let generation = names::GENERATION.help;
        assert_eq!(
            exposition.finish(),
            format!(
                "# HELP portcullis_requests_total {help}\n# TYPE portcullis_requests_total counter\n\
                 portcullis_requests_total{{class=\"2xx\"}} 7\nportcullis_requests_total{{class=\"5xx\"}} 0.5\n\
                 # HELP portcullis_config_generation {generation}\n# TYPE portcullis_config_generation gauge\n\
                 portcullis_config_generation 3\n"
            )
        );
    }

    #[test]
    fn labels_come_back_as_they_went_in() {
        let nasty = "a\\b\"c\nd{},= \u{e9}";
        let mut exposition = Exposition::new();
        exposition.family(&names::ROUTE_REQUESTS).sample(&[("route", nasty), ("code", "200")], 1);
        let families = strict::parse(&exposition.finish()).expect("valid text");
        let sample = &families["portcullis_route_requests_total"].samples[0];
        assert_eq!(sample.labels, [("route".into(), nasty.into()), ("code".into(), "200".into())]);
    }

    #[test]
    fn numbers_are_exact() {
        let check = |value, expected: &str| {
            let mut out = String::new();
            number(&mut out, value);
            assert_eq!(out, expected);
        };
        check(Value::Count(u64::MAX), "18446744073709551615");
        check(Value::Nanos(64_000), "0.000064");
        check(Value::Nanos(67_108_864_000), "67.108864");
        check(Value::Nanos(2_000_000_000), "2");
        check(Value::Nanos(10_000_000_001), "10.000000001");
        check(Value::Nanos(0), "0");
        check(Value::Float(f64::INFINITY), "+Inf");
        check(Value::Float(f64::NAN), "NaN");
        check(Value::Float(0.25), "0.25");
    }

    #[test]
    fn a_histogram_is_cumulated_and_closed_by_infinity() {
        let histogram = GatewayHistogram::default();
        for duration in [900, 1_500, 1_600, 1_000_000_000] {
            histogram.record(duration);
        }
        let mut totals = Totals::default();
        histogram.add_to(&mut totals);
        let mut exposition = Exposition::new();
        exposition.family(&names::ROUTE_GATEWAY_LATENCY).histogram(&[("route", "r")], &totals);
        let text = exposition.finish();
        assert!(text.contains("_bucket{route=\"r\",le=\"0.000001\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{route=\"r\",le=\"0.000002\"} 3\n"), "{text}");
        assert!(text.contains("_bucket{route=\"r\",le=\"0.131072\"} 3\n"), "{text}");
        assert!(text.contains("_bucket{route=\"r\",le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("_sum{route=\"r\"} 1.000004\n"), "{text}");
        assert!(text.contains("_count{route=\"r\"} 4\n"), "{text}");
        strict::parse(&text).expect("valid text");
    }
}
