//! docs/packing.svg: the share of the cards that is given out, against the load that arrived.

use super::arrive::{By, Curve};
use super::mix::{CARD, Mix};

/// The picture, and the part of it that the curves are in: from the left, the top, to the right, the bottom.
const SIZE: (f64, f64) = (1180.0, 560.0);
const FIELD: (f64, f64, f64, f64) = (84.0, 84.0, 960.0, 490.0);
/// Per cent that the field shows.
const LOADS: (f64, f64) = (80.0, 130.0);
const SHARES: (f64, f64) = (80.0, 100.0);
const SANS: &str = "font-family='Inter,Helvetica,Arial,DejaVu Sans,sans-serif'";
/// As in docs/picture.py.
const BACK: &str = "#0d1b2a";
const PANEL: &str = "#14273c";
const EDGE: &str = "#3a5a7c";
const TEXT: &str = "#e6edf3";
const DIM: &str = "#8aa4bf";
const COLOURS: [&str; 3] = ["#7ee787", "#f2cc60", "#79b8ff"];

/// The picture.
pub fn draw(mix: &Mix, curves: &[Curve]) -> String {
    let (width, height) = SIZE;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>\n\
         <rect width='{width}' height='{height}' rx='10' fill='{BACK}'/>\n"
    );
    let cards = thousands(mix.capacity() / CARD);
    let title = "GPU share given out, against the load that arrived".to_owned();
    out += &text(FIELD.0, 38.0, &title, 18, TEXT, "start");
    let what =
        format!("{}: {} nodes, {cards} cards; replicas come one by one and stay", mix.name, mix.nodes.len());
    out += &text(FIELD.0, 60.0, &what, 13, DIM, "start");
    out += &grid();
    for (curve, colour) in curves.iter().zip(COLOURS).rev() {
        let points = (LOADS.0 as usize..=LOADS.1 as usize).map(|load| {
            let (x, y) = at(load as f64, curve.at(load) * 100.0);
            format!("{x:.1},{y:.1}")
        });
        let points = points.collect::<Vec<_>>().join(" ");
        out += &format!("<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2.5'/>\n");
    }
    out + &labels(curves) + "</svg>\n"
}

/// Where a load and a share are.
fn at(load: f64, share: f64) -> (f64, f64) {
    let part = |value: f64, range: (f64, f64)| (value - range.0) / (range.1 - range.0);
    let x = FIELD.0 + part(load, LOADS) * (FIELD.2 - FIELD.0);
    (x, FIELD.3 - part(share, SHARES) * (FIELD.3 - FIELD.1))
}

fn grid() -> String {
    let (left, top, right, bottom) = FIELD;
    let (width, height) = (right - left, bottom - top);
    let mut out = format!("<rect x='{left}' y='{top}' width='{width}' height='{height}' fill='{PANEL}'/>\n");
    for share in (80..=100).step_by(5) {
        let y = at(LOADS.0, f64::from(share)).1;
        out += &format!("<path d='M{left},{y:.1} H{right}' stroke='{EDGE}' stroke-width='0.6'/>\n");
        out += &text(left - 10.0, y + 4.0, &format!("{share} %"), 12, DIM, "end");
    }
    for load in (80..=130).step_by(10) {
        let x = at(f64::from(load), SHARES.0).0;
        out += &format!("<path d='M{x:.1},{top} V{bottom}' stroke='{EDGE}' stroke-width='0.6'/>\n");
        out += &text(x, bottom + 20.0, &format!("{load} %"), 12, DIM, "middle");
    }
    let ideal = (at(80.0, 80.0), at(100.0, 100.0));
    let ((x1, y1), (x2, y2)) = ideal;
    out += &format!(
        "<path d='M{x1:.1},{y1:.1} L{x2:.1},{y2:.1}' stroke='{DIM}' stroke-width='1.2' stroke-dasharray='4 5'/>\n"
    );
    out += &text(x2 + 8.0, y2 + 18.0, "everything that arrived", 12, DIM, "start");
    let middle = (left + right) / 2.0;
    out + &text(
        middle,
        bottom + 46.0,
        "GPU share of all replicas that arrived, of all cards",
        13,
        DIM,
        "middle",
    )
}

/// Each curve's name and last value at its end, not on top of each other.
fn labels(curves: &[Curve]) -> String {
    let mut ends: Vec<(f64, usize)> = curves
        .iter()
        .enumerate()
        .map(|(index, curve)| (at(LOADS.1, curve.at(130) * 100.0).1, index))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut out, mut lowest) = (String::new(), f64::MIN);
    for (y, index) in ends {
        let y = y.max(lowest + 22.0);
        lowest = y;
        let words = format!("{}  {:.1} %", By::ALL[index].name(), curves[index].at(130) * 100.0);
        out += &text(FIELD.2 + 12.0, y + 5.0, &words, 15, COLOURS[index], "start");
    }
    out
}

fn text(x: f64, y: f64, words: &str, size: u32, colour: &str, anchor: &str) -> String {
    format!(
        "<text x='{x:.1}' y='{y:.1}' {SANS} font-size='{size}' fill='{colour}' text-anchor='{anchor}'>{words}</text>\n"
    )
}

/// `1,548`.
fn thousands(number: u64) -> String {
    match number {
        small if small < 1000 => small.to_string(),
        large => format!("{},{:03}", large / 1000, large % 1000),
    }
}
