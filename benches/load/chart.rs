//! Bar charts as SVG, written by hand: groups of horizontal bars, each group on its own scale.
//!
//! Readable on a light and on a dark page, and without colour: every bar carries its name and number.

use std::fmt::Write as _;

/// One bar of stacked parts.
pub struct Bar {
    name: String,
    /// Whose colour it has.
    program: String,
    /// What each part is; empty where the bar is one number.
    parts: Vec<(&'static str, f64)>,
}

impl Bar {
    pub fn plain(name: &str, value: f64) -> Self {
        Self::named(name, name, value)
    }

    /// A bar with a name of its own in the colour of a program.
    pub fn named(name: &str, program: &str, value: f64) -> Self {
        Self { name: name.to_owned(), program: program.to_owned(), parts: vec![("", value)] }
    }

    pub fn split<const N: usize>(name: &str, parts: [(&'static str, f64); N]) -> Self {
        Self { name: name.to_owned(), program: name.to_owned(), parts: parts.to_vec() }
    }

    fn total(&self) -> f64 {
        self.parts.iter().map(|(_, value)| value).sum()
    }
}

pub struct Group {
    pub title: String,
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 760.0;
/// How long the longest bar of a group is, where names are short; long names take from it.
const LONGEST: f64 = 540.0;
/// Room for a name: one of its letters, and the least for all.
const LETTER: f64 = 7.2;
const LEFT: f64 = 110.0;
const BAR: f64 = 20.0;
const GAP: f64 = 6.0;
const TITLE: f64 = 26.0;

/// Portcullis stands out; the others share a grey.
fn colour(program: &str, part: usize) -> &'static str {
    match (program, part) {
        ("portcullis", 0) => "#1f6feb",
        ("portcullis", _) => "#79b0ff",
        (_, 0) => "#6e7781",
        _ => "#b6bec7",
    }
}

pub fn draw(title: &str, groups: &[Group]) -> String {
    let longest_name = groups.iter().flat_map(|g| &g.bars).map(|b| b.name.chars().count()).max().unwrap_or(0);
    let left = (longest_name as f64 * LETTER + 24.0).max(LEFT);
    let rows: f64 = groups.iter().map(|g| TITLE + g.bars.len() as f64 * (BAR + GAP) + 12.0).sum();
    let height = 44.0 + rows;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"16\" font-weight=\"bold\" fill=\"#1f2328\">{}</text>\n",
        escape(title)
    );
    let mut y = 44.0;
    for group in groups {
        let _ = writeln!(
            out,
            "<text x=\"16\" y=\"{}\" fill=\"#1f2328\" font-weight=\"bold\">{}</text>",
            y + 16.0,
            escape(&group.title)
        );
        y += TITLE;
        let most = group.bars.iter().map(Bar::total).fold(1e-9, f64::max);
        for bar in &group.bars {
            draw_bar(&mut out, bar, (left, y), (LONGEST + LEFT - left) / most);
            y += BAR + GAP;
        }
        y += 12.0;
    }
    out.push_str("</svg>\n");
    out
}

fn draw_bar(out: &mut String, bar: &Bar, (left, y): (f64, f64), scale: f64) {
    let text_y = y + BAR * 0.72;
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{text_y:.1}\" text-anchor=\"end\" fill=\"#1f2328\">{}</text>",
        left - 8.0,
        escape(&bar.name)
    );
    let mut x = left;
    for (n, (part, value)) in bar.parts.iter().enumerate() {
        let width = value * scale;
        let fill = colour(&bar.program, n);
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{fill}\">\
             <title>{} {part} {}</title></rect>",
            escape(&bar.name),
            number(*value)
        );
        // A part too narrow for its label is explained by the others' labels and by its tooltip.
        if !part.is_empty() && width > 70.0 {
            let ink = if n == 0 { "#ffffff" } else { "#1f2328" };
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{text_y:.1}\" fill=\"{ink}\" font-size=\"11\">{part} {}</text>",
                x + 5.0,
                number(*value)
            );
        }
        x += width;
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{text_y:.1}\" fill=\"#1f2328\">{}</text>",
        x + 6.0,
        number(bar.total())
    );
}

/// Three or so significant digits.
fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{v:.0}"),
        v if v >= 100.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width_and_the_others_follow() {
        let group = Group {
            title: "a < b".into(),
            bars: vec![Bar::plain("portcullis", 5.0), Bar::split("nginx", [("user", 4.0), ("kernel", 6.0)])],
        };
        let svg = draw("t", &[group]);
        assert!(svg.contains("a &lt; b"));
        for width in [270.0, 216.0, 324.0] {
            assert!(svg.contains(&format!("width=\"{width:.1}\" height=\"20\"")), "{width} in {svg}");
        }
        assert!(svg.contains(">user 4.00<") && svg.contains(">10.00<"));
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        assert!(
            !draw("t", &[Group { title: "x".into(), bars: vec![Bar::plain("nginx", 0.0)] }]).contains("NaN")
        );
    }
}
