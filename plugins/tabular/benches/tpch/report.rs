//! The tables that the benchmark prints, in Markdown.

use std::collections::BTreeMap;

use crate::arguments::Settings;
use crate::contenders::{Contender, Found, HANDWRITTEN};
use crate::digest;
use crate::measure::Usage;
use crate::query::Query;

pub(crate) fn print_header(settings: &Settings, found: &Found) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("TPC-H SF{}, {} alternating rounds, {cores} cores", settings.scale, settings.rounds);
    for contender in &found.present {
        println!("- {} {}", contender.name(), contender.version());
    }
    for (name, reason) in &found.absent {
        println!("- {name}: skipped: {reason}");
    }
}

pub(crate) fn print_query(query: Query, digest: &str, contenders: &[Contender], usages: &BTreeMap<String, Vec<Usage>>) {
    println!("\n**{}** ({} rows, the same from all)\n", query.title(), digest::rows(digest));
    println!("| contender | wall s, median (min–max) | CPU s | peak MiB | wall ÷ by hand | peak ÷ by hand |");
    println!("|---|---|---|---|---|---|");
    let yardstick = usages.get(HANDWRITTEN).map(|usages| Summary::of(usages));
    for contender in contenders {
        let Some(summary) = usages.get(contender.name()).map(|usages| Summary::of(usages)) else { continue };
        let ratio = |of: fn(&Summary) -> f64| match &yardstick {
            Some(yardstick) => format!("{:.2}", of(&summary) / of(yardstick)),
            None => "–".to_owned(),
        };
        println!(
            "| {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.0} | {} | {} |",
            contender.name(),
            summary.wall_s,
            summary.fastest_s,
            summary.slowest_s,
            summary.cpu_s,
            summary.peak_mib,
            ratio(|summary| summary.wall_s),
            ratio(|summary| summary.peak_mib),
        );
    }
}

/// Medians over the rounds, and the ends of the wall times.
struct Summary {
    wall_s: f64,
    fastest_s: f64,
    slowest_s: f64,
    cpu_s: f64,
    peak_mib: f64,
}

impl Summary {
    fn of(usages: &[Usage]) -> Self {
        let wall = sorted(usages, |usage| usage.wall.as_secs_f64());
        Self {
            wall_s: median(&wall),
            fastest_s: wall.first().copied().unwrap_or(f64::NAN),
            slowest_s: wall.last().copied().unwrap_or(f64::NAN),
            cpu_s: median(&sorted(usages, |usage| usage.cpu.as_secs_f64())),
            peak_mib: median(&sorted(usages, |usage| usage.peak_bytes as f64 / f64::from(1 << 20))),
        }
    }
}

fn sorted(usages: &[Usage], of: fn(&Usage) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = usages.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}
