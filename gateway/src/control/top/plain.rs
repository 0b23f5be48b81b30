//! A frame as plain text, for scripts and for terminals that are none.

use super::super::operator::table;
use super::frame::Frame;
use super::screen::{State, duration_text, rate_text, summary};

/// Every list whole, in the order of the screen.
pub fn text(frame: &Frame, state: &State) -> String {
    let owned = |cells: [&str; 3]| cells.map(ToOwned::to_owned);
    let mut text = summary(frame).join("\n") + "\n";
    let reasons = state
        .reasons(frame)
        .into_iter()
        .map(|reason| [reason.name.clone(), rate_text(reason.per_second), reason.total.to_string()]);
    text += &listed(owned(["REASON", "PER S", "TOTAL"]), reasons);
    let sources = state.sources(frame).into_iter().map(|source| {
        let (requests, refused) = (source.requests_per_second, source.refused_per_second);
        [source.source.clone(), rate_text(requests), rate_text(refused)]
    });
    text += &listed(owned(["SOURCE", "REQUESTS/S", "REFUSED/S"]), sources);
    let routes = state.routes(frame).into_iter().map(|route| {
        [
            route.name.clone(),
            rate_text(route.requests_per_second),
            duration_text(route.p99_us),
            format!("{:.1}", route.errors_percent),
        ]
    });
    text += &listed(["ROUTE", "PER S", "99 %", "5XX %"].map(ToOwned::to_owned), routes);
    let shards = frame.shards.iter().map(|shard| {
        [
            shard.number.to_string(),
            shard.core.to_string(),
            format!("{:.0}", shard.cpu_percent),
            shard.connections.to_string(),
            rate_text(shard.requests_per_second),
        ]
    });
    text += &listed(["SHARD", "CORE", "CPU %", "CONNECTIONS", "PER S"].map(ToOwned::to_owned), shards);
    let targets = state.targets(frame).into_iter();
    let targets =
        targets.map(|target| [target.upstream.clone(), target.target.clone(), target.condition.clone()]);
    text + &listed(owned(["UPSTREAM", "TARGET", "CONDITION"]), targets)
}

/// A list with its heading; an empty one is left out.
fn listed<const N: usize>(heading: [String; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    format!("\n{}", table(std::iter::once(heading).chain(rows)))
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::readings;
    use super::*;

    #[test]
    fn every_list_is_told() {
        let (before, now) = readings();
        let text = text(&Frame::between(&before, &now), &State::default());
        assert!(text.starts_with("100 requests/s"), "{text}");
        for part in [
            "\nREASON        PER S  TOTAL\ndrop_banned   500    1005\nrate_limited  10.0   30\n",
            "\nSOURCE     REQUESTS/S  REFUSED/S\n192.0.2.7  90.5        9.50\n",
            "\nROUTE  PER S  99 %    5XX %\napi    100    1.0 ms  10.0\n",
            "\nSHARD  CORE  CPU %  CONNECTIONS  PER S\n0      3     75     7            100\n",
            "\nUPSTREAM  TARGET       CONDITION\nweb       10.0.0.1:80  ejected\n",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        let idle = super::text(&Frame::default(), &State::default());
        assert!(!idle.contains("REASON"), "{idle}");
    }
}
