//! What a message costs as the queue grows: a table, and a plot of it.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use super::super::Scale;
use super::super::meter::Figure;
use super::super::system::Side;
use super::backlog::{Sample, measure};
use crate::shell::{Result, target};

/// Sizes of the queue.
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Messages that pass each of them.
const PASSING: usize = 5_000;

/// A line of the plot: what is measured per message, its colour, and how.
type Line = (&'static str, &'static str, fn(&Sample) -> f64);

const LINES: [Line; 4] = [
    ("start until known, µs per message", "#06c", |sample| micros(sample.known, sample.messages)),
    ("listing, µs per message", "#080", |sample| micros(sample.listed, sample.messages)),
    ("memory in qmgr, bytes per message", "#c60", |sample| sample.memory),
    ("CPU of a message that passes, µs", "#c06", |sample| sample.passing.as_secs_f64() * 1e6),
];

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;

/// The plot goes from 1 to this, in decades.
const DECADES: f64 = 5.0;

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let largest = scale.of(1_000_000);
    let samples = SIZES.into_iter().filter(|size| *size <= largest);
    let samples = samples.map(|size| measure(side, size, scale.of(PASSING).min(PASSING)));
    let samples = samples.collect::<Result<Vec<_>>>()?;
    println!(
        "  | messages | known after s | bytes each | first line s | listed s | at rest, CPU ms/s | passing, CPU ms |"
    );
    println!("  |---|---|---|---|---|---|---|");
    for sample in &samples {
        let Sample { messages, memory, known, list_begins, listed, idle, passing, .. } = sample;
        let [known, list_begins, listed] = [known, list_begins, listed].map(Duration::as_secs_f64);
        let [idle, passing] = [idle, passing].map(|time| time.as_secs_f64() * 1000.0);
        println!(
            "  | {messages} | {known:.2} | {memory:.0} | {list_begins:.3} | {listed:.2} | {idle:.1} | {passing:.3} |"
        );
    }
    let path = target().join("bench/growth.svg");
    fs::write(&path, plot(&samples)).map_err(|e| format!("write {}: {e}", path.display()))?;
    println!("  {}", path.display());
    Ok(Vec::new())
}

fn micros(time: Duration, messages: usize) -> f64 {
    time.as_secs_f64() * 1e6 / messages as f64
}

/// Both axes are logarithmic: what is flat costs each message the same.
fn plot(samples: &[Sample]) -> String {
    let mut svg = String::new();
    let most = samples.iter().map(|sample| sample.messages).max().unwrap_or(1).max(10_000) as f64;
    let least = SIZES[0] as f64;
    let x =
        |messages: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * (messages / least).log10() / (most / least).log10();
    let y = |value: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * value.max(1.0).log10() / DECADES;
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>"
    );
    for decade in (0..=5).map(f64::from) {
        let (value, at) = (10_f64.powf(decade), y(10_f64.powf(decade)));
        let (from, to) = (MARGIN, WIDTH - MARGIN);
        let _ = writeln!(
            svg,
            "<path d=\"M{from} {at:.0}H{to}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{value}</text>",
            from - 4.0,
            at + 4.0
        );
    }
    for sample in samples {
        let at = x(sample.messages as f64);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - MARGIN + 16.0,
            sample.messages
        );
    }
    for (number, (name, colour, value)) in LINES.iter().enumerate() {
        let points =
            samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample.messages as f64), y(value(sample))));
        let points = points.collect::<Vec<_>>().join(" ");
        let (left, top) = (MARGIN + 280.0 * (number % 2) as f64, 16.0 + 14.0 * (number / 2) as f64);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{left:.0}\" y=\"{top:.0}\" fill=\"{colour}\">{name}</text>"
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">messages that wait</text>\n</svg>",
        WIDTH / 2.0,
        HEIGHT - 12.0
    );
    svg
}
