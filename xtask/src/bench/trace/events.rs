//! How many events a second are followed without losing any, what that takes of a processor, and how many are
//! lost when nobody holds back. The ring buffer has the size that it has by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    super::{
        crowd,
        follower::Follower,
        row::{Better, Peer, Row},
        samples::Samples,
        stage::{Stage, until},
    },
    BENCH,
};

/// How long producers are busy at each rate.
const SECONDS: u64 = 2;
/// The first rate that is tried: pairs a second, made and closed. Each next one is twice as high.
const FIRST: u64 = 2000;
/// Doubling ends here: nobody makes so many.
const LAST: u64 = 1 << 22;
/// A follower is at rest when it has not run for so long.
const CALM: Duration = Duration::from_millis(300);
/// How often the last step is halved.
const REFINED: u32 = 3;

/// What came of one rate.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Events that were recorded, a second.
    events: f64,
    /// Events that were not.
    lost: u64,
    /// In percent of all.
    share: f64,
    /// How long the follower was busy with a million of them, in seconds.
    cpu: f64,
}

/// What came of one follower.
#[derive(Clone, Debug)]
struct Pace {
    /// At the highest rate without loss.
    sustained: Vec<Run>,
    /// When producers do what they can.
    full: Vec<Run>,
}

/// From one producer and from two. `ucr trace`, which only writes down what it reads, is the peer.
pub(super) fn run(stage: &Stage, repetitions: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for producers in [1, 2] {
        let name = |what: &str| format!("{what}-{producers}");
        let daemon = Follower::daemon(stage, &name("events"))
            .and_then(|mut follower| pace(stage, &mut follower, producers, repetitions));
        let trace = Follower::trace(stage, &name("trace"))
            .and_then(|mut follower| pace(stage, &mut follower, producers, repetitions));
        let row = |workload: &str, unit, better, of: &dyn Fn(&Pace) -> Option<Samples>| {
            let measured = |pace: &Result<Pace>| match pace {
                Ok(pace) => of(pace).context("was not measured").map_err(|why| why.to_string()),
                Err(why) => Err(format!("{why:#}")),
            };
            let peer = Peer { name: "ucr trace --json".to_owned(), value: measured(&trace) };
            Row {
                bench: BENCH,
                workload: format!("daemon, {producers} busy: {workload}"),
                n: producers,
                unit,
                better,
                ucr: measured(&daemon),
                peer: Some(peer),
                target: None,
            }
        };
        let of_full = |what: fn(&Run) -> f64| {
            move |pace: &Pace| Samples::new(pace.full.iter().map(what).collect())
        };
        let of_sustained = |what: fn(&Run) -> f64| {
            move |pace: &Pace| Samples::new(pace.sustained.iter().map(what).collect())
        };
        let (events, cpu) = (of_sustained(|run| run.events), of_sustained(|run| run.cpu));
        rows.push(row("without loss", "events/s", Better::More, &events));
        rows.push(row("CPU per million events", "s", Better::Less, &cpu));
        rows.push(row("at full speed", "events/s", Better::More, &of_full(|run| run.events)));
        rows.push(row("lost at full speed", "%", Better::Less, &of_full(|run| run.share)));
    }
    Ok(rows)
}

/// Lets producers do what they can. Only if something is lost then, finds the highest rate without loss, and
/// sees that it holds.
fn pace(stage: &Stage, follower: &mut Follower, producers: u64, repetitions: u32) -> Result<Pace> {
    let mut at = |rate| measure(stage, follower, producers, rate);
    let full = (0..repetitions).map(|_| at(None)).collect::<Result<Vec<_>>>()?;
    if full.iter().all(|run| run.lost == 0) {
        return Ok(Pace { sustained: full.clone(), full });
    }
    let (mut good, mut bad) = (FIRST / 2, None);
    let mut reached = 0.0;
    while bad.is_none() && good < LAST {
        let run = at(Some(good * 2))?;
        if run.lost > 0 {
            bad = Some(good * 2);
        } else if run.events < reached * 1.1 {
            // The producers are at their end, and the follower is not.
            break;
        } else {
            (good, reached) = (good * 2, run.events);
        }
    }
    for _ in 0..REFINED {
        let Some(high) = bad else { break };
        let middle = u64::midpoint(good, high);
        if at(Some(middle))?.lost > 0 { bad = Some(middle) } else { good = middle }
    }
    // What went well once need not go well again.
    let sustained = loop {
        let mut values = Vec::new();
        for _ in 0..repetitions {
            let run = at(Some(good))?;
            if run.lost > 0 {
                break;
            }
            values.push(run);
        }
        if values.len() == usize::try_from(repetitions)? {
            break values;
        }
        good = good * 9 / 10;
        ensure!(good > 0, "events are lost however few there are");
    };
    Ok(Pace { sustained, full })
}

fn measure(
    stage: &Stage,
    follower: &mut Follower,
    producers: u64,
    rate: Option<u64>,
) -> Result<Run> {
    let count = |follower: &Follower| counters(&stage.status(&follower.pins)?);
    let before = count(follower)?;
    let busy_before = calm(follower)?;
    let start = Instant::now();
    crowd::busy(stage, producers, rate, SECONDS)?;
    let time = start.elapsed().as_secs_f64();
    // What is still in the ring buffer is also its work.
    let busy = calm(follower)?.saturating_sub(busy_before).as_secs_f64();
    let after = count(follower)?;
    let (emitted, lost) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    let of = |n: u64| u32::try_from(n).map(f64::from);
    let (all, share) = (of(emitted + lost)?, of(lost)? * 100.0);
    let emitted = of(emitted)?;
    ensure!(emitted > 0.0, "no event was recorded");
    Ok(Run { events: emitted / time, lost, share: share / all, cpu: busy / emitted * 1e6 })
}

/// How long a follower has run once it has nothing more to do.
fn calm(follower: &mut Follower) -> Result<Duration> {
    let mut last = (follower.cpu()?, Instant::now());
    until("the follower to have nothing to do", || {
        let now = follower.cpu()?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > CALM).then_some(now))
    })
}

/// Events that were recorded and that were lost, so far.
fn counters(status: &Value) -> Result<(u64, u64)> {
    let counter = |name: &'static str| {
        let value = status.get("counters").and_then(|counters| counters.get(name)?.as_u64());
        value.with_context(|| format!("find `{name}` in ucr status --json"))
    };
    Ok((counter("emitted")?, counter("lost")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counters_are_found_or_named() {
        let status = json!({ "counters": { "emitted": 7, "lost": 1 } });
        assert_eq!(counters(&status).expect("both"), (7, 1));
        let error = counters(&json!({ "counters": { "emitted": 7 } })).expect_err("no lost");
        assert!(error.to_string().contains("`lost`"), "{error}");
    }
}
