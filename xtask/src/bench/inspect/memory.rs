//! What the daemon takes of memory, while the sockets come that it knows.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    super::{
        crowd::Crowd,
        follower::Follower,
        row::{Better, Measured, Row, Target},
        samples::Samples,
        stage::{Stage, until},
    },
    BENCH,
};

/// In MiB.
const TARGET: Target = Target::Below(64.0);
/// It has taken in what there is when its memory has stood still for so long.
const CALM: Duration = Duration::from_secs(1);

/// At none of the crowd's sockets, at half of them and at all; and what each takes.
pub(super) fn run(stage: &Stage, sockets: usize) -> Vec<Row> {
    measure(stage, sockets).unwrap_or_else(|why| {
        let failed = row("daemon, memory", sockets, "MiB", Err(format!("{why:#}")));
        vec![Row { target: Some(TARGET), ..failed }]
    })
}

fn measure(stage: &Stage, sockets: usize) -> Result<Vec<Row>> {
    let mut daemon = Follower::daemon(stage, "memory")?;
    let mut crowd = Crowd::new();
    let none = calm(&mut daemon)?;
    crowd.pairs(stage, sockets / 2)?;
    let (half, at_half) = (crowd.sockets(), calm(&mut daemon)?);
    crowd.connections(stage, sockets / 2)?;
    let (all, at_all) = (crowd.sockets(), calm(&mut daemon)?);
    println!("bench: {all} unix sockets, which the daemon saw being made");
    let mut rows = Vec::new();
    for (n, bytes) in [(0, none), (half, at_half), (all, at_all)] {
        rows.push(row("daemon, memory", n, "MiB", Ok(Samples::one(bytes / 1024.0 / 1024.0))));
    }
    for row in &mut rows {
        row.target = Some(TARGET);
    }
    for (n, bytes) in [(half, at_half), (all, at_all)] {
        let each = (bytes - none) / f64::from(u32::try_from(n)?.max(1));
        rows.push(row("daemon, memory per socket", n, "bytes", Ok(Samples::one(each))));
    }
    Ok(rows)
}

/// Its memory once that stands still, in bytes.
fn calm(daemon: &mut Follower) -> Result<f64> {
    let mut last = (daemon.memory()?, Instant::now());
    let bytes = until("the daemon's memory to stand still", || {
        let now = daemon.memory()?;
        // A page more or less is no change.
        if now.abs_diff(last.0) > 64 * 1024 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > CALM).then_some(now))
    })?;
    Ok(f64::from(u32::try_from(bytes / 1024)?) * 1024.0)
}

fn row(workload: &str, n: usize, unit: &'static str, ucr: Measured) -> Row {
    Row {
        bench: BENCH,
        workload: workload.to_owned(),
        n: u64::try_from(n).unwrap_or(u64::MAX),
        unit,
        better: Better::Less,
        ucr,
        peer: None,
        target: None,
    }
}
