//! `retry`, and the `retryExpression` of `buffering`: further attempts, translated into `retries` and `retry_policy` of a
//! service.

use super::super::tree::{Map, list, plain};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::node::Node;
use crate::source::Span;

/// Both keys of the service for the middleware `retry`.
pub(super) fn translated(inner: &Fields<'_>) -> Map {
    let span = inner.origin().span;
    let attempts: i64 = inner.integer("attempts");
    let mut policy = Map::new(span);
    let first = inner.optional_duration("initialInterval").filter(|time| !time.is_zero());
    if let Some(first) = first {
        let at = inner.span_of("initialInterval");
        let ms = |ms: u128| plain(at, format!("{}ms", ms.clamp(1, 60_000)));
        // Traefik's pauses grow to twice the first one.
        let pause = Map::new(at)
            .with("base_interval", ms(first.as_millis()))
            .with("max_interval", ms(2 * first.as_millis()));
        policy.put("retry_back_off", pause.node());
    }
    if let Some(statuses) = inner.get("status") {
        policy.put("retriable_status_codes", listed(inner, statuses));
    }
    if inner.bool("disableRetryOnNetworkError") {
        policy.put("retry_on", list(inner.span_of("disableRetryOnNetworkError"), Vec::new()));
    }
    policy.maybe("retry_non_idempotent", inner.get("retryNonIdempotentMethod").cloned());
    of_service(plain(inner.span_of("attempts"), (attempts - 1).max(0)), policy)
}

/// The same for a `retryExpression`; `None` where nothing of it has a counterpart.
pub(super) fn of_expression(inner: &Fields<'_>) -> Option<Map> {
    let expression = inner.optional_string("retryExpression")?;
    let span = inner.span_of("retryExpression");
    let Some(Expression { retries, on_network_errors, statuses }) = Expression::read(&expression) else {
        let fault = Fault::new("the expression has no counterpart here: nothing is tried again");
        let hint = "as in `IsNetworkError() && Attempts() <= 2`, with `ResponseCode() == 503` beside";
        inner.warning("retryExpression", fault.hint(hint));
        return None;
    };
    let mut policy = Map::new(span);
    let words = ["connect-failure", "refused-stream", "reset", "timeout", "bad-response"];
    let words: &[&str] = if on_network_errors { &words } else { &[] };
    policy.put("retry_on", list(span, words.iter().map(|word| plain(span, word)).collect()));
    policy.put("retriable_status_codes", numbers(span, statuses));
    // It holds bodies to send them again, whatever the method.
    policy.put("retry_non_idempotent", plain(span, true));
    Some(of_service(plain(span, retries), policy))
}

fn of_service(retries: Node, policy: Map) -> Map {
    let span = retries.span;
    let mut keys = Map::new(span).with("retries", retries);
    if !policy.is_empty() {
        keys.put("retry_policy", policy.node());
    }
    keys
}

/// Statuses, and ranges such as `502-504`.
fn listed(inner: &Fields<'_>, statuses: &Node) -> Node {
    let mut all = Vec::new();
    for item in statuses.items() {
        let written = item.text().unwrap_or_default();
        let (from, to) = written.split_once('-').unwrap_or((written, written));
        match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
            (Ok(from), Ok(to)) if (400..=599).contains(&from) && (from..=599).contains(&to) => {
                all.extend(from..=to);
            }
            _ => inner.error("status", format!("{written:?} is no status of an error and no range of them")),
        }
    }
    numbers(statuses.span, all)
}

fn numbers(span: Span, numbers: Vec<u16>) -> Node {
    list(span, numbers.into_iter().map(|number| plain(span, number)).collect())
}

/// What an expression says that is a bound on attempts, and reasons of which one is enough.
#[derive(Debug, PartialEq)]
struct Expression {
    retries: u32,
    on_network_errors: bool,
    statuses: Vec<u16>,
}

impl Expression {
    fn read(text: &str) -> Option<Self> {
        let mut found = Self { retries: 0, on_network_errors: false, statuses: Vec::new() };
        let (mut bounded, mut reasons) = (false, 0);
        for part in text.split("&&").map(str::trim) {
            let part = part.strip_prefix('(').and_then(|part| part.strip_suffix(')')).map_or(part, str::trim);
            if let Some(bound) = part.strip_prefix("Attempts()") {
                // The first attempt is 1 already.
                found.retries = match comparison(bound)? {
                    ("<", number) => number.checked_sub(1)?,
                    ("<=", number) => number,
                    _ => return None,
                };
                bounded = true;
                continue;
            }
            reasons += 1;
            for reason in part.split("||").map(str::trim) {
                match reason.strip_prefix("ResponseCode()") {
                    // What Traefik's own answers say of the network.
                    None if reason == "IsNetworkError()" => {
                        found.on_network_errors = true;
                        found.statuses.extend([502, 504]);
                    }
                    Some(code) => found.statuses.extend(codes(code)?),
                    None => return None,
                }
            }
        }
        // Without a bound Traefik makes ten attempts.
        if !bounded {
            found.retries = 9;
        }
        // Of two reasons both would have to hold.
        (reasons == 1).then_some(found)
    }
}

fn comparison(text: &str) -> Option<(&'static str, u32)> {
    let text = text.trim();
    let sign = ["<=", ">=", "==", "<", ">"].into_iter().find(|sign| text.starts_with(sign))?;
    Some((sign, text[sign.len()..].trim().parse().ok()?))
}

fn codes(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (sign, number) = comparison(text)?;
    let number = u16::try_from(number).ok().filter(|number| (400..=599).contains(number))?;
    match sign {
        "==" => Some(number..=number),
        ">=" => Some(number..=599),
        ">" => Some(number + 1..=599),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        let read = |text: &str| {
            Expression::read(text).map(|found| (found.retries, found.on_network_errors, found.statuses))
        };
        assert_eq!(read("IsNetworkError() && Attempts() < 2"), Some((1, true, vec![502, 504])));
        assert_eq!(read("Attempts() <= 2 && ResponseCode() == 503"), Some((2, false, vec![503])));
        let several = "(IsNetworkError() || ResponseCode() >= 598) && Attempts() <= 3";
        assert_eq!(read(several), Some((3, true, vec![502, 504, 598, 599])));
        assert_eq!(read("IsNetworkError()"), Some((9, true, vec![502, 504])));
        for other in
            ["Attempts() < 3", "IsNetworkError() && ResponseCode() == 503", "RequestMethod() == 'GET'", ""]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
