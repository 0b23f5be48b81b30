//! A frame on a terminal.
//!
//! Owns the layout, and what the operator's wishes (order, filter) make of a frame's lists. Never: a terminal; it draws
//! on whatever area it is given.

use std::cmp::Ordering;

use ratatui::Frame as Area;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::frame::{Frame, Reason, Route};
use crate::control::ledger::{SourceTop, TargetTop};

/// What the operator wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub sort: Sort,
    pub paused: bool,
    /// Only lines that hold this text.
    pub filter: String,
    /// Keys go into the filter.
    pub editing: bool,
}

/// The order of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The busiest first.
    #[default]
    Rate,
    /// The most since the start first.
    Total,
    Name,
}

impl Sort {
    /// The one that the next press of the key gives.
    pub fn next(self) -> Sort {
        match self {
            Sort::Rate => Sort::Total,
            Sort::Total => Sort::Name,
            Sort::Name => Sort::Rate,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Total => "total",
            Sort::Name => "name",
        }
    }

    fn of(self, a: (f64, f64, &str), b: (f64, f64, &str)) -> Ordering {
        let by_name = a.2.cmp(b.2);
        match self {
            Sort::Rate => b.0.total_cmp(&a.0).then(by_name),
            Sort::Total => b.1.total_cmp(&a.1).then(by_name),
            Sort::Name => by_name,
        }
    }
}

impl State {
    fn shows(&self, text: &str) -> bool {
        text.contains(self.filter.as_str())
    }

    /// The reasons to show, in order.
    pub fn reasons<'f>(&self, frame: &'f Frame) -> Vec<&'f Reason> {
        let mut found: Vec<_> = frame.reasons.iter().filter(|reason| self.shows(&reason.name)).collect();
        found.sort_by(|a, b| {
            self.sort.of((a.per_second, a.total as f64, &a.name), (b.per_second, b.total as f64, &b.name))
        });
        found
    }

    /// The sources to show, in order.
    pub fn sources<'f>(&self, frame: &'f Frame) -> Vec<&'f SourceTop> {
        let key =
            |source: &'f SourceTop| (source.requests_per_second, source.refused_per_second, &*source.source);
        let mut found: Vec<_> = frame.sources.iter().filter(|source| self.shows(&source.source)).collect();
        found.sort_by(|a, b| self.sort.of(key(a), key(b)));
        found
    }

    /// The routes to show, in order.
    pub fn routes<'f>(&self, frame: &'f Frame) -> Vec<&'f Route> {
        let key = |route: &'f Route| (route.requests_per_second, route.total as f64, &*route.name);
        let mut found: Vec<_> = frame.routes.iter().filter(|route| self.shows(&route.name)).collect();
        found.sort_by(|a, b| self.sort.of(key(a), key(b)));
        found
    }

    /// The targets to show: those that are not healthy first.
    pub fn targets<'f>(&self, frame: &'f Frame) -> Vec<&'f TargetTop> {
        let shown = |target: &&TargetTop| self.shows(&target.target) || self.shows(&target.upstream);
        let mut found: Vec<_> = frame.targets.iter().filter(shown).collect();
        found.sort_by_key(|target| (target.condition == "healthy", &target.upstream, &target.target));
        found
    }
}

/// Draws everything.
pub fn draw(area: &mut Area<'_>, frame: &Frame, state: &State) {
    let rows = Layout::vertical([Constraint::Length(3), Constraint::Min(6), Constraint::Length(1)]);
    let [top, middle, bottom] = rows.areas(area.area());
    area.render_widget(Paragraph::new(head(frame)), top);
    let columns = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let [left, right] = columns.areas(middle);
    let halves = Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let [reasons, sources] = halves.areas(left);
    let shards = frame.shards.len().min(16) as u16 + 3;
    let thirds = Layout::vertical([Constraint::Min(5), Constraint::Length(shards), Constraint::Min(4)]);
    let [routes, shards, targets] = thirds.areas(right);
    draw_reasons(area, reasons, frame, state);
    draw_sources(area, sources, frame, state);
    draw_routes(area, routes, frame, state);
    draw_shards(area, shards, frame);
    draw_targets(area, targets, frame, state);
    area.render_widget(Paragraph::new(foot(state)), bottom);
}

/// The lines above the lists.
pub fn summary(frame: &Frame) -> [String; 3] {
    let answers = frame.answers_per_second;
    let [p50, p90, p99] = frame.gateway_us.map(duration_text);
    [
        format!(
            "{} requests/s (2xx {}, 3xx {}, 4xx {}, 5xx {}), {} active",
            rate_text(frame.requests_per_second),
            rate_text(answers[1]),
            rate_text(answers[2]),
            rate_text(answers[3]),
            rate_text(answers[4]),
            frame.active
        ),
        format!("time in the gateway: half {p50}, 90 % {p90}, 99 % {p99}"),
        format!("kernel part: {}; generation {}", frame.kernel, frame.generation),
    ]
}

fn head(frame: &Frame) -> Vec<Line<'static>> {
    let [requests, latency, kernel] = summary(frame);
    vec![Line::from(requests).bold(), Line::from(latency), Line::from(kernel)]
}

fn foot(state: &State) -> Line<'static> {
    let filter = match (state.editing, state.filter.is_empty()) {
        (true, _) => format!("filter: {}_", state.filter),
        (false, true) => "/ filter".into(),
        (false, false) => format!("/ filter: {}", state.filter),
    };
    let pause = if state.paused { "p PAUSED" } else { "p pause" };
    Line::from(format!("q quit  s sort by {}  {pause}  {filter}", state.sort.as_str())).dim()
}

fn table<'a, const N: usize>(
    title: &'static str,
    heading: [&'static str; N],
    widths: [Constraint; N],
    rows: impl Iterator<Item = Row<'a>>,
) -> Table<'a> {
    Table::new(rows, widths).header(Row::new(heading).bold()).block(Block::bordered().title(title))
}

fn draw_reasons(area: &mut Area<'_>, place: Rect, frame: &Frame, state: &State) {
    let rows = state.reasons(frame).into_iter().map(|reason| {
        let dropped = reason.name.starts_with("drop_") && reason.per_second > 0.0;
        let style = if dropped { Style::new().red() } else { Style::new() };
        Row::new([reason.name.clone(), rate_text(reason.per_second), reason.total.to_string()]).style(style)
    });
    let widths = [Constraint::Min(16), Constraint::Length(10), Constraint::Length(12)];
    area.render_widget(table(" reasons ", ["reason", "per s", "total"], widths, rows), place);
}

fn draw_sources(area: &mut Area<'_>, place: Rect, frame: &Frame, state: &State) {
    let rows = state.sources(frame).into_iter().map(|source| {
        Row::new([
            source.source.clone(),
            rate_text(source.requests_per_second),
            rate_text(source.refused_per_second),
        ])
    });
    let widths = [Constraint::Min(16), Constraint::Length(12), Constraint::Length(12)];
    area.render_widget(table(" sources ", ["source", "requests/s", "refused/s"], widths, rows), place);
}

fn draw_routes(area: &mut Area<'_>, place: Rect, frame: &Frame, state: &State) {
    let rows = state.routes(frame).into_iter().map(|route| {
        let style = if route.errors_percent > 0.0 { Style::new().yellow() } else { Style::new() };
        Row::new([
            route.name.clone(),
            rate_text(route.requests_per_second),
            duration_text(route.p99_us),
            format!("{:.1}", route.errors_percent),
        ])
        .style(style)
    });
    let widths = [Constraint::Min(12), Constraint::Length(10), Constraint::Length(10), Constraint::Length(8)];
    area.render_widget(table(" routes ", ["route", "per s", "99 %", "5xx %"], widths, rows), place);
}

fn draw_shards(area: &mut Area<'_>, place: Rect, frame: &Frame) {
    let rows = frame.shards.iter().map(|shard| {
        Row::new([
            shard.number.to_string(),
            shard.core.to_string(),
            format!("{:.0}", shard.cpu_percent),
            shard.connections.to_string(),
            rate_text(shard.requests_per_second),
        ])
    });
    let widths = [5, 5, 6, 12, 10].map(Constraint::Length);
    let heading = ["shard", "core", "cpu %", "connections", "per s"];
    area.render_widget(table(" shards ", heading, widths, rows), place);
}

fn draw_targets(area: &mut Area<'_>, place: Rect, frame: &Frame, state: &State) {
    let rows = state.targets(frame).into_iter().map(|target| {
        let healthy = target.condition == "healthy";
        let style = if healthy { Style::new() } else { Style::new().red() };
        Row::new([target.upstream.clone(), target.target.clone(), target.condition.clone()]).style(style)
    });
    let widths = [Constraint::Min(10), Constraint::Min(16), Constraint::Length(10)];
    area.render_widget(table(" targets ", ["upstream", "target", "condition"], widths, rows), place);
}

/// Three digits are enough.
pub fn rate_text(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        rate if rate < 10.0 => format!("{rate:.2}"),
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate if rate < 1e5 => format!("{rate:.0}"),
        rate if rate < 1e8 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.0}M", rate / 1e6),
    }
}

/// Microseconds in the unit that suits.
pub fn duration_text(us: Option<u64>) -> String {
    match us {
        None => "-".into(),
        Some(us) if us < 1000 => format!("{us} us"),
        Some(us) if us < 1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::frame::tests::readings;
    use super::*;

    fn drawn(frame: &Frame, state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|area| draw(area, frame, state)).unwrap();
        terminal.backend().to_string()
    }

    fn frame() -> Frame {
        let (before, now) = readings();
        Frame::between(&before, &now)
    }

    #[test]
    fn everything_is_on_the_screen() {
        let screen = drawn(&frame(), &State::default(), 110, 30);
        for part in [
            "100 requests/s (2xx 90.0, 3xx 0, 4xx 10.0, 5xx 0), 2 active",
            "half 10 us, 90 % 100 us, 99 % 100 us",
            "kernel part: native on eth0, enforce; generation 0",
            "drop_banned",
            "500",
            "1005",
            "192.0.2.7",
            "90.5",
            "api",
            "1.0 ms",
            "10.0.0.1:80",
            "ejected",
            "q quit  s sort by rate  p pause  / filter",
        ] {
            assert!(screen.contains(part), "{part} is missing:\n{screen}");
        }
        let (banned, limited) = (screen.find("drop_banned").unwrap(), screen.find("rate_limited").unwrap());
        assert!(banned < limited, "the busiest first:\n{screen}");
    }

    #[test]
    fn order_and_filter() {
        let frame = frame();
        let by_name = State { sort: Sort::Name, ..State::default() };
        assert_eq!(by_name.reasons(&frame)[0].name, "drop_banned");
        let filtered = State { filter: "limited".into(), paused: true, ..State::default() };
        let screen = drawn(&frame, &filtered, 110, 30);
        assert!(screen.contains("rate_limited") && !screen.contains("drop_banned"), "{screen}");
        assert!(screen.contains("p PAUSED  / filter: limited"), "{screen}");
        let editing = State { filter: "x".into(), editing: true, ..State::default() };
        assert!(drawn(&frame, &editing, 110, 30).contains("filter: x_"));
    }

    #[test]
    fn a_tiny_terminal_is_no_panic() {
        for (width, height) in [(1, 1), (10, 3), (40, 8)] {
            drawn(&frame(), &State::default(), width, height);
        }
    }

    #[test]
    fn numbers_in_few_digits() {
        let texts = [0.0, 1.234, 12.34, 1234.4, 1.2e6, 3e9].map(rate_text);
        assert_eq!(texts, ["0", "1.23", "12.3", "1234", "1200k", "3000M"]);
        let texts = [None, Some(10), Some(1500), Some(2_000_000)].map(duration_text);
        assert_eq!(texts, ["-", "10 us", "1.5 ms", "2.0 s"]);
    }
}
