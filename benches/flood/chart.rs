//! Line charts as SVG, written by hand: few points, one line for each guard, told apart by dashes as well as by colour.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 110.0;
const INK: &str = "#1f2328";
const STYLES: [(&str, &str); 3] = [("#1f6feb", ""), ("#cf222e", "6 4"), ("#6e7781", "2 3")];

/// A line with its name.
pub type Line = (&'static str, Vec<(f64, f64)>);

/// Draws lines over a common axis of rates, one step for each rate. `logarithmic`: of the vertical axis.
pub fn draw(title: &str, unit: &str, logarithmic: bool, lines: &[Line]) -> String {
    let values = || lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value);
    let most = values().fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let least =
        if logarithmic { values().filter(|value| *value > 0.0).fold(most, f64::min).min(1.0) } else { 0.0 };
    let height = |value: f64| {
        let share = if logarithmic {
            (value.max(least).ln() - least.ln()) / (most.ln() - least.ln())
        } else {
            value / most
        };
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let count = lines.first().map_or(1, |(_, points)| points.len()).max(2);
    let across = |at: usize| LEFT + at as f64 * (WIDTH - LEFT - RIGHT) / (count - 1) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"16\" font-weight=\"bold\" fill=\"{INK}\">{title}</text>\n"
    );
    for mark in marks(least, most, logarithmic) {
        let y = height(mark);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#d0d7de\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{INK}\">{mark}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    for (at, (rate, _)) in
        lines.first().map(|(_, points)| points.as_slice()).unwrap_or_default().iter().enumerate()
    {
        let (x, y) = (across(at), HEIGHT - BOTTOM + 18.0);
        let _ =
            writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"{INK}\">{rate}</text>");
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"{INK}\">{unit}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - BOTTOM + 36.0
    );
    for (number, (name, points)) in lines.iter().enumerate() {
        let (colour, dash) = STYLES[number % STYLES.len()];
        let path: Vec<_> = points
            .iter()
            .enumerate()
            .map(|(at, (_, value))| format!("{:.1},{:.1}", across(at), height(*value)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-dasharray=\"{dash}\"/>",
            path.join(" ")
        );
        let y = HEIGHT - 50.0 + number as f64 * 17.0;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"2.5\" \
             stroke-dasharray=\"{dash}\"/><text x=\"{}\" y=\"{y}\" fill=\"{INK}\">{name}</text>",
            y - 4.0,
            LEFT + 34.0,
            y - 4.0,
            LEFT + 44.0
        );
    }
    out.push_str("</svg>\n");
    out
}

fn marks(least: f64, most: f64, logarithmic: bool) -> Vec<f64> {
    if logarithmic {
        let first = 10_f64.powf(least.log10().ceil());
        return std::iter::successors(Some(first), |mark| Some(mark * 10.0))
            .take_while(|mark| *mark <= most)
            .collect();
    }
    let step = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * step).into_iter().find(|step| most / step <= 5.0);
    let step = step.unwrap_or(most);
    (0..=5).map(|number| f64::from(number) * step).filter(|mark| *mark <= most).collect()
}
