//! Rounds of (nothing, empty, ucr), many and short, so that whatever else the machine does falls on all
//! of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Map, Value, json};
use ucr::tracer::{
    hooks::{Backend, Hook},
    object::{LogLevel, Object, Sizes},
    session::attach_hooks,
};

use super::{
    floor::Floor,
    kernel,
    loops::{Bench, Loop},
    only,
};

/// How long a loop is to last, in nanoseconds.
const SLICE: f64 = 6e6;
/// What part of it goes round before it counts.
const WARMING: u32 = 8;
/// With how many a loop is tried, to find out how many fill a slice.
const TRIED: u32 = 200;

/// What is to be measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How sockets are traced
    #[arg(long, value_enum)]
    pub(crate) backend: Backend,
    /// How many rounds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// What is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Nothing,
    Empty,
    Ucr,
}

impl State {
    const ALL: [Self; 3] = [Self::Nothing, Self::Empty, Self::Ucr];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Empty => "empty",
            Self::Ucr => "ucr",
        }
    }
}

/// Measures, and tells for each loop and state what a turn took in each round, in nanoseconds.
pub(crate) fn run(args: &Args) -> Result<Value> {
    let mut object = Object::load(None, Sizes::default(), LogLevel::Off)?;
    let hooked = attach_hooks(&mut object, &only(args.backend))?;
    let hooks: Vec<&'static Hook> = hooked.links.iter().map(|(hook, _)| *hook).collect();
    drop(hooked);
    let mut floor = Floor::load(&hooks, object.btf())?;
    let cpu = stay_on_one_cpu()?;
    let bench = Bench::new()?;
    let counts = Loop::ALL.map(|which| bench.time(which, TRIED).map(|each| (which, fit(each))));
    let counts = counts.into_iter().collect::<Result<Vec<_>>>()?;
    let mut times: BTreeMap<(State, usize), Vec<f64>> = BTreeMap::new();
    for round in 0..args.rounds {
        for turn in 0..State::ALL.len() {
            // Each begins as often as the others.
            let at = (turn + usize::try_from(round)?) % State::ALL.len();
            let state = *State::ALL.get(at).context("one of the states")?;
            let mut links = Vec::new();
            match state {
                State::Nothing => {}
                State::Empty => links = floor.attach()?,
                State::Ucr => {
                    for hook in &hooks {
                        links.push(object.attach(hook)?);
                    }
                }
            }
            for (at, (which, count)) in counts.iter().enumerate() {
                bench.time(*which, (count / WARMING).max(1))?;
                times.entry((state, at)).or_default().push(bench.time(*which, *count)?);
            }
        }
    }
    let loops = counts.iter().enumerate().map(|(at, (which, count))| {
        let mut entry = Map::new();
        entry.insert("loop".to_owned(), which.name().into());
        entry.insert("turns".to_owned(), (*count).into());
        for state in State::ALL {
            entry.insert(state.name().to_owned(), json!(times.get(&(state, at))));
        }
        entry
    });
    Ok(json!({
        "kernel": kernel(),
        "backend": args.backend.name(),
        "cpu": cpu,
        "hooks": hooks.iter().map(|hook| hook.program).collect::<Vec<_>>(),
        "loops": loops.collect::<Vec<_>>(),
    }))
}

/// As many turns as fill a slice.
fn fit(each: f64) -> u32 {
    let turns = (SLICE / each.max(1.0)).ceil().clamp(16.0, 1e6);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
    let turns = turns as u32;
    turns
}

/// The last processor that we may use: the first is the one that interrupts go to.
pub(crate) fn stay_on_one_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(None).context("ask which processors there are")?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let last = last.context("a processor that we may use")?;
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one).context("stay on one processor")?;
    ensure!(sched_getaffinity(None).is_ok_and(|now| now.count() == 1), "it did not stay on one");
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_filled_and_no_loop_is_endless() {
        assert_eq!(fit(6000.0), 1000);
        assert_eq!(fit(0.0), 1_000_000);
        assert_eq!(fit(1e9), 16);
    }
}
