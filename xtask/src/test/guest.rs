//! The runs of one kernel, in one guest, one after the other.

use std::{
    env,
    ffi::{OsStr, OsString},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    libtest::{self, Verdict},
    matrix::{Fault, Matrix, Row, RunResult},
    programs::Built,
    runs::{RUNS, Run},
    transcript::{self, Section},
};
use crate::{
    commands,
    vm::{self, Destination, End, Job, Kernel, Limits, Outcome},
};

/// How long all tests of a kernel may take.
const LIMIT: Duration = Duration::from_mins(30);
/// How much more patient the tests have to be than on the host.
const PATIENCE: &str = "4";
/// In MiB. What is below `/tmp` is in memory, too.
const MEMORY: u32 = 1536;
/// How many tests without a result are named.
const NAMED: usize = 5;

/// How tests are run.
#[derive(Clone, Copy, Debug)]
pub(super) struct How<'a> {
    pub(super) programs: &'a [Built],
    /// Only tests whose names contain this.
    pub(super) filter: Option<&'a str>,
    /// A test that cannot run fails.
    pub(super) all_must_run: bool,
    pub(super) limits: Limits,
}

/// A program of a run, with the tests that it is to run.
#[derive(Debug)]
struct Step<'a> {
    run: &'static Run,
    program: &'a Built,
    tests: Vec<String>,
}

/// Runs all runs of a kernel.
pub(super) fn run(kernel: Kernel, how: How<'_>) -> Matrix {
    try_run(kernel, how).unwrap_or_else(|error| not_run(kernel, &format!("{error:#}")))
}

/// Says of all runs of a kernel why they could not begin.
pub(super) fn not_run(kernel: Kernel, why: &str) -> Matrix {
    let row = |run: &Run| Row {
        kernel: kernel.to_string(),
        backend: run.backend.name().to_owned(),
        result: RunResult::NotRun(why.to_owned()),
    };
    let runs = RUNS.iter().filter(|run| run.kernel == kernel);
    Matrix { rows: runs.map(row).collect(), ..Matrix::default() }
}

fn try_run(kernel: Kernel, how: How<'_>) -> Result<Matrix> {
    let mut steps = Vec::new();
    for run in RUNS.iter().filter(|run| run.kernel == kernel) {
        steps.append(&mut steps_of(run, how)?);
    }
    if steps.is_empty() {
        return Ok(not_run(kernel, "no test of this name is among them"));
    }
    let mut job = Job::new(&["sh".as_ref(), "-c".as_ref(), script(&steps)?.as_os_str()]);
    job.memory = MEMORY;
    job.timeout = LIMIT;
    job.env = variables(how)?;
    how.limits.apply(&mut job);
    let log = commands::root().join(format!("target/vm-{kernel}.log"));
    eprintln!("test: what the tests print on Linux {kernel} goes to {}", log.display());
    job.destination = Destination::Logged(log);

    let outcome = vm::run(kernel, &job)?;
    if let End::NotBooted(_) = outcome.end {
        eprintln!("test: Linux {}: {}; {}", outcome.release, outcome.end, outcome.console.tail());
        return Ok(not_run(kernel, &outcome.end.to_string()));
    }
    Ok(read(kernel, &steps, &outcome))
}

fn steps_of<'a>(run: &'static Run, how: How<'a>) -> Result<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    for part in run.parts {
        let program = how.programs.iter().find(|built| built.program == part.program);
        let program = program.context("a program of the table was not built")?;
        let mut tests = program.tests(how.filter)?;
        tests.retain(|test| part.has(test));
        if !tests.is_empty() {
            steps.push(Step { run, program, tests });
        }
    }
    Ok(steps)
}

/// What the tests are told, also about where they are.
fn variables(how: How<'_>) -> Result<Vec<(String, OsString)>> {
    let ucr = env::current_exe().context("find out where xtask is")?.with_file_name("ucr");
    let mut path =
        OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:").to_owned();
    path.push(commands::tools().join("bin"));
    let mut variables = vec![
        ("PATH".to_owned(), path),
        ("UCR_BIN".to_owned(), ucr.into()),
        ("UCR_PATIENCE".to_owned(), PATIENCE.into()),
        // Attaching takes six seconds there, so that most of the stories do it once and share it.
        ("UCR_SHARED".to_owned(), "/sys/fs/bpf".into()),
        // Also whom events are for can be only one of them at a time.
        ("RUST_TEST_THREADS".to_owned(), "1".into()),
        // Else it asks cargo, and writes what is new into the workspace.
        ("INSTA_WORKSPACE_ROOT".to_owned(), commands::root().into()),
        ("INSTA_UPDATE".to_owned(), "no".into()),
    ];
    if how.all_must_run {
        variables.push(("UCR_NO_SKIP".to_owned(), "1".into()));
    }
    Ok(variables)
}

/// A shell script that takes the steps and leaves a transcript.
fn script(steps: &[Step<'_>]) -> Result<OsString> {
    let commands = steps.iter().map(|step| {
        let mut words: Vec<&OsStr> = vec!["env".as_ref()];
        let backend = format!("UCR_BACKEND={}", step.run.backend.name());
        words.push(backend.as_ref());
        words.push(step.program.path.as_os_str());
        words.push("--exact".as_ref());
        words.extend(step.tests.iter().map(AsRef::<OsStr>::as_ref));
        transcript::command(&step.program.folder, &words)
    });
    Ok(transcript::script(commands.collect::<Result<_>>()?))
}

/// Puts together what the steps of each run left.
fn read(kernel: Kernel, steps: &[Step<'_>], outcome: &Outcome) -> Matrix {
    let mut matrix = Matrix::default();
    let sections = transcript::sections(&outcome.output);
    for run in RUNS.iter().filter(|run| steps.iter().any(|step| std::ptr::eq(step.run, *run))) {
        let mut tests = Vec::new();
        let own = steps.iter().zip(0..).filter(|(step, _)| std::ptr::eq(step.run, run));
        for (step, number) in own {
            let section = sections.get(number).cloned().unwrap_or_default();
            let name =
                format!("{} {} {:?}", outcome.release, run.backend.name(), step.program.program);
            tests.append(&mut read_step(&name, step, &section, &mut matrix));
        }
        matrix.rows.push(Row {
            kernel: outcome.release.clone(),
            backend: run.backend.name().to_owned(),
            result: RunResult::Ran(tests),
        });
    }
    for line in outcome.console.oddities() {
        matrix.told.push(format!("Linux {} says: {line}", outcome.release));
    }
    if let Err(error) = outcome.status() {
        matrix.told.push(error.to_string());
        matrix.faults.push(Fault(format!("{kernel}: {}", outcome.end)));
    }
    matrix
}

fn read_step(
    name: &str,
    step: &Step<'_>,
    section: &Section,
    matrix: &mut Matrix,
) -> Vec<libtest::Test> {
    let mut tests = libtest::tests(&section.output);
    libtest::skip(&mut tests, &section.skipped);
    let failures = libtest::failures(&section.output);
    if !failures.is_empty() {
        matrix.told.push(format!("{name}:\n{failures}"));
    }
    let has_failed = tests.iter().any(|test| test.verdict == Verdict::Failed);
    match section.status.as_deref() {
        Some("0") => {}
        Some("101") if has_failed => {}
        Some(status) => matrix.faults.push(Fault(format!("{name}: ended with status {status}"))),
        None => matrix.faults.push(Fault(format!("{name}: did not end"))),
    }
    let is_missing = |name: &&String| tests.iter().all(|test| test.name != **name);
    let missing: Vec<&str> = step.tests.iter().filter(is_missing).map(String::as_str).collect();
    if let Some(named) = missing.get(..missing.len().min(NAMED)).filter(|named| !named.is_empty()) {
        let fault =
            format!("{name}: {} tests without a result: {} …", missing.len(), named.join(", "));
        matrix.faults.push(Fault(fault));
    }
    tests
}
