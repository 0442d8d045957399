//! How often each of ucr's programs runs in each loop, and how long: what the kernel counts itself
//! (`BPF_ENABLE_STATS`), which makes each run a little longer.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};
use serde_json::{Map, Value, json};
use ucr::tracer::{
    hooks::{Backend, Hook},
    object::{LogLevel, Object, Sizes},
    session::attach_hooks,
};

use super::{
    kernel,
    loops::{Bench, Loop},
    only,
    rounds::stay_on_one_cpu,
};

/// Turns of each loop.
const TURNS: u32 = 2000;

/// Runs each loop and says what each program did in a turn.
pub(crate) fn run(backend: Backend) -> Result<Value> {
    let mut object = Object::load(None, Sizes::default(), LogLevel::Off)?;
    let hooked = attach_hooks(&mut object, &only(backend))?;
    let hooks: Vec<&'static Hook> = hooked.links.iter().map(|(hook, _)| *hook).collect();
    let _counting = enable_stats(Stats::RunTime).context("have the kernel count")?;
    stay_on_one_cpu()?;
    let bench = Bench::new()?;
    let mut loops = Map::new();
    for which in Loop::ALL {
        bench.time(which, TURNS / 10)?;
        let before = spent(&object, &hooks)?;
        bench.time(which, TURNS)?;
        let after = spent(&object, &hooks)?;
        let mut programs = Map::new();
        for (name, (runs, time)) in after {
            let (runs_before, time_before) = before.get(name).copied().unwrap_or_default();
            let runs = runs.saturating_sub(runs_before);
            if runs > 0 {
                let spent = time.saturating_sub(time_before);
                let each = |value: f64| (value / f64::from(TURNS) * 100.0).round() / 100.0;
                programs.insert(
                    name.to_owned(),
                    json!({
                        "runs": each(f64::from(u32::try_from(runs)?)),
                        "ns": each(spent.as_secs_f64() * 1e9),
                    }),
                );
            }
        }
        loops.insert(which.name().to_owned(), programs.into());
    }
    Ok(json!({ "kernel": kernel(), "backend": backend.name(), "in_a_turn": loops }))
}

/// Runs and time of each program so far.
fn spent(
    object: &Object,
    hooks: &[&'static Hook],
) -> Result<BTreeMap<&'static str, (u64, Duration)>> {
    let mut all = BTreeMap::new();
    for (name, program) in object.programs() {
        if let Some(hook) = hooks.iter().find(|hook| hook.program == name) {
            let info = program.info().with_context(|| format!("ask about {name}"))?;
            all.insert(hook.program, (info.run_count(), info.run_time()));
        }
    }
    Ok(all)
}
