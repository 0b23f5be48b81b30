//! `circuitBreaker`: its expression, translated into the settings of an upstream's breaker.
//!
//! Owns the three functions that an expression is made of. Alternatives (`||`) are translated one by one; what only holds
//! together (`&&`) has no counterpart, and is said so.

use super::super::tree::{Map, list, plain};
use crate::diagnostic::Fault;
use crate::fields::Fields;

/// The settings; `None` when nothing of the expression has a counterpart.
pub(super) fn translated(inner: &Fields<'_>) -> Option<Map> {
    let expression = inner.optional_string("expression")?;
    let span = inner.span_of("expression");
    let mut config = Map::new(span);
    let mut failures: Option<u64> = None;
    let mut statuses = std::collections::BTreeSet::new();
    let mut slow = false;
    for part in expression.split("||").map(str::trim) {
        match condition(part) {
            Some(Condition::Failures { share, codes }) => {
                statuses.extend(codes);
                let percent = (share * 100.0).round().clamp(1.0, 100.0) as u64;
                failures = Some(failures.map_or(percent, |known| known.min(percent)));
            }
            Some(Condition::Slow { quantile, ms }) => {
                slow = true;
                config.put("slow_after", plain(span, format!("{}ms", ms.round().max(1.0))));
                config.put("slow_percent", plain(span, (100.0 - quantile).round().clamp(1.0, 100.0)));
            }
            None => {
                let fault = Fault::new(format!("`{part}` has no counterpart here: it opens nothing"));
                let hint = "a breaker opens by a share of failures or of slow answers";
                inner.warning("expression", fault.hint(hint));
            }
        }
    }
    if failures.is_none() && !slow {
        return None;
    }
    config.put("failure_percent", plain(span, failures.unwrap_or(0)));
    // There, one answer is enough for a ratio.
    config.put("min_requests", plain(span, 1));
    if !statuses.is_empty() {
        config.put("http_statuses", list(span, statuses.iter().map(|status| plain(span, status)).collect()));
    }
    let fallback = inner.optional_duration("fallbackDuration").filter(|time| !time.is_zero());
    if let Some(time) = fallback {
        config.put(
            "open_for",
            plain(inner.span_of("fallbackDuration"), format!("{}ms", time.as_millis().max(1000))),
        );
    }
    if inner.is_set("recoveryDuration") {
        inner.warning("recoveryDuration", "the breaker closes after some good answers, not in a time");
    }
    config.maybe("status_code", inner.get("responseCode").cloned());
    Some(config)
}

#[derive(Debug, PartialEq)]
enum Condition {
    /// A share of answers, from 0 to 1, that have one of these statuses. Broken connections count in any case.
    Failures { share: f64, codes: Vec<u16> },
    /// The time within which so many percent of answers come.
    Slow { quantile: f64, ms: f64 },
}

/// `Function(arguments) > number`.
fn condition(text: &str) -> Option<Condition> {
    let (call, limit) = text.split_once('>')?;
    let limit: f64 = limit.trim_start_matches('=').trim().parse().ok()?;
    let (function, arguments) = call.trim().strip_suffix(')')?.split_once('(')?;
    let arguments: Option<Vec<f64>> = match arguments.trim() {
        "" => Some(Vec::new()),
        list => list.split(',').map(|one| one.trim().parse().ok()).collect(),
    };
    match (function.trim(), arguments?.as_slice()) {
        // Traefik tells errors of the network by the answers that stand for them.
        ("NetworkErrorRatio", []) => Some(Condition::Failures { share: limit, codes: vec![502, 504] }),
        // A share of all answers; the end is not among the statuses.
        ("ResponseCodeRatio", [from, to, 0.0, 600.0]) if *from >= 400.0 && *to <= 600.0 && from < to => {
            Some(Condition::Failures { share: limit, codes: (*from as u16..*to as u16).collect() })
        }
        ("LatencyAtQuantileMS", [quantile]) => Some(Condition::Slow { quantile: *quantile, ms: limit }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_expressions() {
        let failures = |share, codes| Some(Condition::Failures { share, codes });
        for (text, expected) in [
            ("NetworkErrorRatio() > 0.30", failures(0.3, vec![502, 504])),
            ("ResponseCodeRatio(500, 503, 0, 600) > 0.25", failures(0.25, vec![500, 501, 502])),
            ("LatencyAtQuantileMS(50.0) > 100", Some(Condition::Slow { quantile: 50.0, ms: 100.0 })),
            ("ResponseCodeRatio(300, 500, 0, 600) > 0.25", None),
            ("ResponseCodeRatio(500, 600, 200, 600) > 0.25", None),
            ("NetworkErrorRatio() > 0.3 && LatencyAtQuantileMS(50.0) > 100", None),
            ("NetworkErrorRatio()", None),
        ] {
            assert_eq!(condition(text), expected, "{text}");
        }
    }
}
