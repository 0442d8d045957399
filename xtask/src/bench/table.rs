//! The rows for people: a table, and below it what could not be measured.

use std::collections::BTreeSet;

use super::{
    row::{Measured, Row, Verdict},
    samples::Samples,
};

const HEAD: [&str; 8] = ["WORKLOAD", "N", "UCR", "MIN-MAX", "PEER", "PEER'S", "RATIO", "TARGET"];

/// The whole of it, with a line of figures at its end.
pub(super) fn show(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let mut told = BTreeSet::new();
    for row in rows {
        let peer = row.peer.as_ref().map(|peer| (peer.name.as_str(), &peer.value));
        for (who, measured) in [("ucr", &row.ucr)].into_iter().chain(peer) {
            let Err(why) = measured else { continue };
            let line = format!("bench: {}: {who}: {why}\n", row.workload);
            // With each of its peers ucr has failed in the same way.
            if told.insert(line.clone()) {
                text.push_str(&line);
            }
        }
    }
    text.push_str(&figures(rows));
    text
}

fn figures(rows: &[Row]) -> String {
    let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    format!(
        "bench: rows={} met={} missed={} failed={} without_peer={}\n",
        rows.len(),
        count(Verdict::Met),
        count(Verdict::Missed),
        count(Verdict::Failed),
        count(Verdict::NoPeer),
    )
}

fn cells(row: &Row) -> [String; HEAD.len()] {
    let nothing = || "-".to_owned();
    let value = |measured: &Measured| match measured {
        Ok(samples) => format!("{} {}", number(samples.median()), row.unit),
        Err(_) => "failed".to_owned(),
    };
    let spread = |samples: &Samples| match samples.min() == samples.max() {
        true => nothing(),
        false => format!("{}-{}", number(samples.min()), number(samples.max())),
    };
    let ratio = row
        .ratio()
        .map(|ratio| format!("{}x{}", number(ratio), if row.is_noise() { " (noise)" } else { "" }));
    let target = row.aim().map(|aim| match row.verdict() {
        Verdict::Met => format!("{aim}: met"),
        Verdict::Missed => format!("{aim}: MISSED"),
        Verdict::Measured | Verdict::Failed | Verdict::NoPeer => format!("{aim}: ?"),
    });
    [
        row.workload.clone(),
        row.n.to_string(),
        value(&row.ucr),
        row.ucr.as_ref().map_or_else(|_| nothing(), spread),
        row.peer.as_ref().map_or_else(nothing, |peer| peer.name.clone()),
        row.peer.as_ref().map_or_else(nothing, |peer| value(&peer.value)),
        ratio.unwrap_or_else(nothing),
        target.unwrap_or_else(nothing),
    ]
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::{Better, Peer, Target};

    #[test]
    fn columns_are_aligned_and_failures_are_told() {
        let row = |workload: &str, ucr: Measured| Row {
            bench: "inspect",
            workload: workload.to_owned(),
            n: 100,
            unit: "ms",
            better: Better::Less,
            ucr,
            peer: Some(Peer { name: "ss -xap".to_owned(), value: Ok(Samples::one(2140.0)) }),
            target: Some(Target::Times(20.0)),
        };
        let fast = Samples::new(vec![90.0, 91.0, 99.5]).ok_or_else(String::new);
        let unsteady = Samples::new(vec![90.0, 2150.0, 2200.0]).ok_or_else(String::new);
        let rows = [
            row("ls", fast),
            row("slow", unsteady),
            row("who", Err("no such verb".to_owned())),
            row("who", Err("no such verb".to_owned())),
        ];
        let expected = "\
WORKLOAD  N    UCR      MIN-MAX    PEER     PEER'S   RATIO          TARGET
ls        100  91.0 ms  90.0-99.5  ss -xap  2140 ms  23.5x          >= 20 times: met
slow      100  2150 ms  90.0-2200  ss -xap  2140 ms  1.00x (noise)  >= 20 times: MISSED
who       100  failed   -          ss -xap  2140 ms  -              >= 20 times: ?
who       100  failed   -          ss -xap  2140 ms  -              >= 20 times: ?
bench: who: ucr: no such verb
bench: rows=4 met=1 missed=1 failed=2 without_peer=0
";
        assert_eq!(show(&rows), expected);
    }
}
