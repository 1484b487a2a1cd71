//! Draws a chart as SVG, for light pages and for dark ones.
//!
//!     charts PREFIX <SPEC.json    writes PREFIX-light.svg and PREFIX-dark.svg
//!
//! Two files, since a page can choose between them by the theme (docs.github.com, "Specifying the theme an image is shown to").

use anyhow::Context;
use serde::Deserialize;
use std::fmt::Write;

/// What is drawn: lines over numbers, or groups of bars over names.
#[derive(Deserialize)]
struct Spec {
    title: String,
    x: String,
    y: String,
    /// The groups of bars, by name; none for lines.
    #[serde(default)]
    groups: Vec<String>,
    series: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    name: String,
    /// The places and heights of a line's points; of bars, the number of the group and the height.
    points: Vec<(f64, f64)>,
}

struct Theme {
    name: &'static str,
    text: &'static str,
    grid: &'static str,
    colours: [&'static str; 5],
}

const THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        text: "#1f2328",
        grid: "#d1d9e0",
        colours: ["#0969da", "#8250df", "#bc4c00", "#1a7f37", "#cf222e"],
    },
    Theme {
        name: "dark",
        text: "#e6edf3",
        grid: "#3d444d",
        colours: ["#58a6ff", "#bc8cff", "#f0883e", "#3fb950", "#ff7b72"],
    },
];

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 52.0;

fn main() -> anyhow::Result<()> {
    let prefix = std::env::args().nth(1).context("usage: charts PREFIX <SPEC.json")?;
    let spec: Spec = serde_json::from_reader(std::io::stdin().lock())?;
    for theme in &THEMES {
        std::fs::write(format!("{prefix}-{}.svg", theme.name), draw(&spec, theme)?)?;
    }
    Ok(())
}

/// The least of 1, 2 and 5 times a power of ten that is not below `value`.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value * 0.999).unwrap_or(value)
}

/// A number as an axis has it.
fn label(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", value / 1e6),
        1e4.. => format!("{} k", value / 1e3),
        _ => format!("{value}"),
    }
}

fn draw(spec: &Spec, theme: &Theme) -> Result<String, std::fmt::Error> {
    let mut svg = String::new();
    let (text, grid) = (theme.text, theme.grid);
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="{text}">"#
    )?;
    writeln!(
        svg,
        r#"<title>{}</title><text x="{LEFT}" y="20" font-size="15" font-weight="bold">{0}</text>"#,
        spec.title
    )?;
    let points = || spec.series.iter().flat_map(|series| &series.points);
    let highest = points().map(|(_, y)| *y).fold(1e-9, f64::max);
    let step = round_up(highest / 5.0);
    let top = (highest / step).ceil() * step;
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let at = |value: f64| TOP + height * (1.0 - value / top);
    let mut line = 0.0;
    while line <= top * 1.001 {
        let y = at(line);
        writeln!(svg, r#"<path d="M{LEFT} {y:.1}h{width}" stroke="{grid}"/>"#)?;
        writeln!(svg, r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 8.0, y + 4.5, label(line))?;
        line += step;
    }
    let middle = TOP + height / 2.0;
    writeln!(svg, r#"<text transform="translate(14 {middle:.0}) rotate(-90)" text-anchor="middle">{}</text>"#, spec.y)?;
    writeln!(
        svg,
        r#"<text x="{:.0}" y="{:.0}" text-anchor="middle">{}</text>"#,
        LEFT + width / 2.0,
        HEIGHT - 10.0,
        spec.x
    )?;
    let mut place = LEFT;
    for (series, colour) in spec.series.iter().zip(theme.colours) {
        writeln!(svg, r#"<rect x="{place:.0}" y="34" width="12" height="12" rx="2" fill="{colour}"/>"#)?;
        writeln!(svg, r#"<text x="{:.0}" y="45">{}</text>"#, place + 17.0, series.name)?;
        place += 36.0 + 7.2 * f64::from(u32::try_from(series.name.len()).unwrap_or(0));
    }
    let mut under = |x: f64, text: &str| {
        writeln!(svg, r#"<text x="{x:.1}" y="{:.0}" text-anchor="middle">{text}</text>"#, HEIGHT - BOTTOM + 18.0)
    };
    if spec.groups.is_empty() {
        // Whatever is measured grows by factors.
        let low = points().map(|(x, _)| *x).fold(f64::MAX, f64::min).ln();
        let high = points().map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max).ln();
        let across = |x: f64| LEFT + 16.0 + (width - 32.0) * (x.ln() - low) / (high - low).max(1e-9);
        let mut places: Vec<f64> = points().map(|(x, _)| *x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        for x in places {
            under(across(x), &label(x))?;
        }
        for (series, colour) in spec.series.iter().zip(theme.colours) {
            let path: Vec<String> =
                series.points.iter().map(|(x, y)| format!("{:.1} {:.1}", across(*x), at(*y))).collect();
            writeln!(svg, r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join("L"))?;
            for (x, y) in &series.points {
                writeln!(svg, r#"<circle cx="{:.1}" cy="{:.1}" r="3.5" fill="{colour}"/>"#, across(*x), at(*y))?;
            }
        }
    } else {
        let count = |length: usize| f64::from(u32::try_from(length).unwrap_or(1));
        let group = width / count(spec.groups.len());
        let bar = group * 0.8 / count(spec.series.len());
        for (number, name) in spec.groups.iter().enumerate() {
            under(LEFT + group * (count(number) + 0.5), name)?;
        }
        for (number, (series, colour)) in spec.series.iter().zip(theme.colours).enumerate() {
            for (x, y) in &series.points {
                let left = LEFT + group * (x + 0.1) + bar * count(number);
                let (high, bar) = (height * y / top, bar - 1.5);
                writeln!(
                    svg,
                    r#"<rect x="{left:.1}" y="{:.1}" width="{bar:.1}" height="{high:.1}" fill="{colour}"/>"#,
                    at(*y)
                )?;
            }
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}
