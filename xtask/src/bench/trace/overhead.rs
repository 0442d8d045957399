//! What a system call takes longer when sockets are traced: beside what empty programs take in the same
//! places. The program `overhead` of the package `ucr-tests` measures; here it is asked and added up.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    super::{
        row::{Better, Measured, Peer, Row, Target},
        samples::Samples,
        stage::Stage,
    },
    BENCH, GUEST,
};
use crate::{
    commands,
    vm::{self, Job, Kernel},
};

/// How sockets are traced, as `--backend` wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Trampoline,
    Tracepoint,
}

/// How long a guest may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// The loop that users would notice first.
const CONNECTING: &str = "connect+accept";
/// System calls that are none of ours.
const FOREIGN: [&str; 3] = ["getppid", "read", "send+recv, one byte"];

impl Backend {
    const ALL: [Self; 2] = [Self::Trampoline, Self::Tracepoint];

    fn name(self) -> &'static str {
        match self {
            Self::Trampoline => "trampoline",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// At most so many times what empty programs add.
    fn floors(self, which: &str) -> Option<Target> {
        let is_foreign = FOREIGN.contains(&which);
        match self {
            Self::Trampoline => {
                (!is_foreign && !which.starts_with("dup")).then_some(Target::Floors(2.5))
            }
            Self::Tracepoint => is_foreign.then_some(Target::Floors(1.3)),
        }
    }

    /// Percent of what the loop takes with nothing attached.
    fn share(self, which: &str) -> Option<Target> {
        let is_it = self == Self::Trampoline && which.contains(CONNECTING);
        is_it.then_some(Target::Below(5.0))
    }
}

/// One loop: what a turn took in each round, in nanoseconds.
#[derive(Debug)]
struct Loop {
    name: String,
    nothing: Vec<f64>,
    empty: Vec<f64>,
    ucr: Vec<f64>,
}

/// Both backends, each where it can be had.
pub(super) fn run(stage: &Stage, in_guest: bool, repetitions: u32, rounds: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for backend in Backend::ALL {
        let name = backend.name();
        let is_refused = || {
            let refusal = refusal(stage, backend);
            if let Some(why) = &refusal {
                println!(
                    "bench: this kernel refuses the {name} backend ({why}); it is measured in the {GUEST} guest"
                );
            }
            refusal.is_some()
        };
        let words = ["run", "--backend", name, "--rounds", &(repetitions * rounds).to_string()]
            .map(str::to_owned);
        let answer = match in_guest || is_refused() {
            true => ask_guest(stage, GUEST, &words),
            false => ask(stage, &words),
        };
        let measured = answer.and_then(|answer| {
            let kernel = answer.get("kernel").and_then(Value::as_str).context("no kernel")?;
            Ok((kernel.to_owned(), loops(&answer)?))
        });
        match measured {
            Ok((kernel, loops)) => {
                println!("bench: {name} measured on Linux {kernel}");
                for of in &loops {
                    rows.extend(compare(backend, &kernel, of, rounds));
                }
            }
            Err(why) => rows.push(Row {
                ucr: Err(format!("{why:#}")),
                target: backend.share(CONNECTING),
                ..row(format!("{name}: all loops"), "ns")
            }),
        }
    }
    rows
}

/// Asks the program here.
pub(super) fn ask(stage: &Stage, words: &[String]) -> Result<Value> {
    let said = commands::run_quietly(Command::new(stage.overhead()).args(words))?;
    understand(&said)
}

/// Asks it in a guest.
pub(super) fn ask_guest(stage: &Stage, kernel: Kernel, words: &[String]) -> Result<Value> {
    vm::prepare(kernel)?;
    let mut command = vec![stage.overhead().into_os_string()];
    command.extend(words.iter().map(Into::into));
    let mut job = Job::new(&command);
    job.timeout = PATIENCE;
    let outcome = vm::run(kernel, &job)?;
    let said = String::from_utf8_lossy(&outcome.output).into_owned();
    match outcome.status()? {
        0 => understand(&said),
        status => bail!("Linux {}: ended with status {status}: {said}", outcome.release),
    }
}

/// The line of JSON in what it said.
fn understand(said: &str) -> Result<Value> {
    let line = said.lines().find(|line| line.starts_with('{')).context("it said nothing")?;
    serde_json::from_str(line).context("understand what it said")
}

/// Why a backend cannot be had here.
fn refusal(stage: &Stage, backend: Backend) -> Option<String> {
    let report = || -> Result<Value> {
        let pins = stage.pins("features");
        let said = commands::run_quietly(&mut stage.ucr(&pins, &["features", "--json"]))?;
        serde_json::from_str(&said).context("understand ucr features --json")
    };
    let report = match report() {
        Ok(report) => report,
        Err(why) => return Some(format!("{why:#}")),
    };
    let mut offers = report.get("backends").and_then(Value::as_array).into_iter().flatten();
    let own = offers.find(|offer| offer.get("backend") == Some(&backend.name().into()));
    let is_there = own.and_then(|own| own.get("available")?.as_bool()) == Some(true);
    (!is_there).then(|| "as `ucr features` says".to_owned())
}

fn loops(answer: &Value) -> Result<Vec<Loop>> {
    let all = answer.get("loops").and_then(Value::as_array).context("find the loops")?;
    let of = |entry: &Value| -> Result<Loop> {
        let name = entry.get("loop").and_then(Value::as_str).context("a loop without a name")?;
        let times = |state: &str| -> Result<Vec<f64>> {
            let times = entry.get(state).and_then(Value::as_array);
            let times = times.with_context(|| format!("find `{state}` of {name}"))?;
            times.iter().map(|time| time.as_f64().context("a time that is no number")).collect()
        };
        let (nothing, empty, ucr) = (times("nothing")?, times("empty")?, times("ucr")?);
        let same = nothing.len() == empty.len() && empty.len() == ucr.len();
        ensure!(same && !nothing.is_empty(), "{name} has not as many rounds of each");
        Ok(Loop { name: name.to_owned(), nothing, empty, ucr })
    };
    all.iter().map(of).collect()
}

/// For each repetition the middle of its rounds: of what came to `nothing` in the round, as `measure` has it.
fn differences(
    nothing: &[f64],
    other: &[f64],
    rounds: u32,
    measure: fn(f64, f64) -> f64,
) -> Measured {
    let each: Vec<f64> = nothing.iter().zip(other).map(|(a, b)| measure(*a, *b)).collect();
    let size = usize::try_from(rounds).unwrap_or(usize::MAX).max(1);
    let medians = each.chunks(size).filter_map(|own| Samples::new(own.to_vec()));
    let medians = medians.map(|own| own.median()).collect();
    Samples::new(medians).ok_or_else(|| "there were no rounds".to_owned())
}

/// Two rows: nanoseconds beside those of empty programs, and percent of the loop.
fn compare(backend: Backend, kernel: &str, of: &Loop, rounds: u32) -> [Row; 2] {
    let added = |other: &[f64]| differences(&of.nothing, other, rounds, |a, b| b - a);
    let percent =
        |other: &[f64]| differences(&of.nothing, other, rounds, |a, b| (b - a) / a * 100.0);
    let title = |what: &str| format!("{}, Linux {kernel}: {}, {what}", backend.name(), of.name);
    let nanoseconds = Row {
        ucr: added(&of.ucr),
        peer: peer(added(&of.empty).and_then(is_more_than_noise)),
        target: backend.floors(&of.name),
        ..row(title("added"), "ns")
    };
    let share = Row {
        ucr: percent(&of.ucr),
        peer: peer(percent(&of.empty).and_then(is_more_than_noise)),
        target: backend.share(&of.name),
        ..row(title("added of it"), "%")
    };
    [nanoseconds, share]
}

/// How many times as much something is has a meaning only if there is something.
fn is_more_than_noise(added: Samples) -> Measured {
    match added.min() > 0.0 {
        true => Ok(added),
        false => Err(format!("lies in the noise: {:.2} to {:.2}", added.min(), added.max())),
    }
}

fn peer(value: Measured) -> Option<Peer> {
    Some(Peer { name: "empty programs".to_owned(), value })
}

fn row(workload: String, unit: &'static str) -> Row {
    Row {
        bench: BENCH,
        workload,
        n: 1,
        unit,
        better: Better::Floor,
        ucr: Err("was not measured".to_owned()),
        peer: None,
        target: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::Verdict;
    use serde_json::json;

    fn of(name: &str, nothing: &[f64], empty: &[f64], ucr: &[f64]) -> Loop {
        let [nothing, empty, ucr] = [nothing, empty, ucr].map(<[f64]>::to_vec);
        Loop { name: name.to_owned(), nothing, empty, ucr }
    }

    #[test]
    fn rounds_are_held_against_their_own() {
        // The machine became slower, and nothing else.
        let own = of("read", &[100.0, 200.0], &[110.0, 210.0], &[112.0, 212.0]);
        let [added, share] = compare(Backend::Tracepoint, "6", &own, 1);
        assert_eq!(added.ucr, Ok(two(12.0, 12.0)));
        assert_eq!(added.ratio(), Some(1.2));
        assert_eq!(added.verdict(), Verdict::Met);
        assert_eq!(share.ucr, Ok(two(12.0, 6.0)));
        assert_eq!(share.verdict(), Verdict::Measured);
    }

    fn two(a: f64, b: f64) -> Samples {
        Samples::new(vec![a, b]).expect("two")
    }

    #[test]
    fn a_repetition_is_the_middle_of_its_rounds() {
        let nothing = [100.0; 6];
        let other = [101.0, 900.0, 102.0, 105.0, 104.0, 0.0];
        let measured = differences(&nothing, &other, 3, |a, b| b - a);
        assert_eq!(measured, Ok(two(2.0, 4.0)));
    }

    #[test]
    fn many_times_nothing_is_no_ratio() {
        let own = of("socketpair+close", &[100.0, 100.0], &[101.0, 99.0], &[112.0, 112.0]);
        let [added, _] = compare(Backend::Trampoline, "6", &own, 1);
        assert_eq!(added.verdict(), Verdict::NoPeer);
        let why = added.peer.and_then(|peer| peer.value.err()).expect("a reason");
        assert!(why.contains("noise"), "{why}");
    }

    #[test]
    fn targets_are_where_they_belong() {
        let (trampoline, tracepoint) = (Backend::Trampoline, Backend::Tracepoint);
        assert_eq!(trampoline.floors("socketpair+close"), Some(Target::Floors(2.5)));
        assert_eq!(trampoline.floors("getppid"), None);
        assert_eq!(tracepoint.floors("getppid"), Some(Target::Floors(1.3)));
        assert_eq!(tracepoint.floors("socketpair+close"), None);
        assert_eq!(trampoline.share("connect+accept+close"), Some(Target::Below(5.0)));
        assert_eq!(trampoline.share("dgram connect"), None);
        assert_eq!(tracepoint.share("connect+accept+close"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let answer = json!({ "loops": [{ "loop": "read", "nothing": [1.0], "empty": [1.0] }] });
        let error = loops(&answer).expect_err("no times of ucr");
        assert!(error.to_string().contains("`ucr` of read"), "{error}");
        let uneven = json!({
            "loops": [{ "loop": "read", "nothing": [1.0], "empty": [1.0], "ucr": [1.0, 2.0] }]
        });
        loops(&uneven).expect_err("as many of each");
        assert!(understand("vm: booting\n").is_err());
        assert_eq!(
            understand("a warning\n{\"kernel\":\"6\"}\n").expect("one line"),
            json!({ "kernel": "6" })
        );
    }
}
