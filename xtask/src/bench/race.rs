//! Whole commands against the clock, or by what they tell of themselves, taking turns: A B A B …, so that
//! whatever else the machine does meanwhile falls on all of them.

use std::{
    ffi::OsStr,
    process::{Command, Output, Stdio},
    time::Instant,
};

use anyhow::Result;

use super::{figures::Figures, row::Measured, samples::Samples};

/// Whoever takes longer than so many milliseconds is repeated [`SLOW_REPETITIONS`] times at most: some peers
/// take a minute among very many sockets, and that they are slow is soon known.
const SLOW: f64 = 10_000.0;
const SLOW_REPETITIONS: usize = 2;

type Afterwards = Box<dyn FnMut() -> Result<()>>;
type Told = Box<dyn Fn(&str) -> Result<f64>>;

/// A command that takes part.
pub(super) struct Contestant {
    /// As one would type it.
    pub(super) name: String,
    command: Command,
    /// As many lines as it has to print, so that nobody wins by doing nothing.
    least_lines: usize,
    /// Finds in what it prints how long it took of what is measured, if that is not the whole of it.
    told: Option<Told>,
    /// Puts back what it has changed.
    afterwards: Option<Afterwards>,
}

impl Contestant {
    /// A program with its arguments.
    pub(super) fn new<S: AsRef<OsStr>>(name: &str, program: &OsStr, arguments: &[S]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        Self { name: name.to_owned(), command, least_lines: 1, told: None, afterwards: None }
    }

    /// Called something else.
    pub(super) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// A line for the shell.
    pub(super) fn shell(line: &str) -> Self {
        Self::new(line, "sh".as_ref(), &["-c", line])
    }

    /// With a variable in its environment.
    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has to print at least so many lines.
    pub(super) fn printing(mut self, lines: usize) -> Self {
        self.least_lines = lines;
        self
    }

    /// Is measured by the milliseconds that this finds in what it prints, not by the clock.
    pub(super) fn telling(mut self, told: impl Fn(&str) -> Result<f64> + 'static) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// Is followed by this, not against the clock, which puts back what it has changed.
    pub(super) fn then(mut self, afterwards: impl FnMut() -> Result<()> + 'static) -> Self {
        self.afterwards = Some(Box::new(afterwards));
        self
    }

    fn tidy_up(&mut self) -> Result<(), String> {
        let Some(afterwards) = &mut self.afterwards else { return Ok(()) };
        afterwards().map_err(|error| format!("to tidy up: {error:#}"))
    }

    /// Runs it once, not against the clock: caches are warm afterwards, and it is known whether it works.
    fn try_out(&mut self) -> Result<(), String> {
        let said = run(&mut self.command)?;
        let lines = said.bytes().filter(|byte| *byte == b'\n').count();
        if lines < self.least_lines {
            return Err(format!("prints {lines} lines, and has to print {}", self.least_lines));
        }
        if let Some(told) = &self.told {
            told(&said).map_err(|error| format!("{error:#}"))?;
        }
        self.tidy_up()
    }

    /// Milliseconds: those that it tells, or those from its start to its end.
    fn measure(&mut self) -> Result<f64, String> {
        let time = match &self.told {
            Some(told) => {
                let said = run(&mut self.command)?;
                told(&said).map_err(|error| format!("{error:#}"))?
            }
            None => self.time()?,
        };
        self.tidy_up()?;
        Ok(time)
    }

    /// Milliseconds from its start to its end, with what it prints thrown away.
    fn time(&mut self) -> Result<f64, String> {
        let command = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status().map_err(|error| format!("cannot be run: {error}"))?;
        let time = start.elapsed();
        if !status.success() {
            return Err(format!("ended with {status}"));
        }
        Ok(time.as_secs_f64() * 1000.0)
    }
}

/// What a command prints.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(complaint(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How a command ended, and the first thing that it said of it.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing said");
    format!("ended with {}: {first}", output.status)
}

/// Lets all of them run once, and then in turn, so many times. Whoever fails is out, and the others go on.
/// In the order of the contestants; milliseconds.
pub(super) fn race(contestants: &mut [Contestant], repetitions: u32) -> Vec<Measured> {
    let mut times: Vec<Result<Vec<f64>, String>> = contestants
        .iter_mut()
        .map(|contestant| contestant.try_out().map(|()| Vec::new()))
        .collect();
    for _ in 0..repetitions {
        for (contestant, own) in contestants.iter_mut().zip(&mut times) {
            let Ok(sofar) = own else { continue };
            if sofar.len() >= SLOW_REPETITIONS && sofar.iter().all(|time| *time > SLOW) {
                continue;
            }
            match contestant.measure() {
                Ok(time) => sofar.push(time),
                Err(why) => *own = Err(why),
            }
        }
    }
    let measured = times.into_iter().map(|own| {
        own.and_then(|times| Samples::new(times).ok_or_else(|| "was not repeated".to_owned()))
    });
    measured.collect()
}

/// The same, by the names that the contestants have.
pub(super) fn race_into(figures: &mut Figures, contestants: &mut [Contestant], repetitions: u32) {
    let measured = race(contestants, repetitions);
    for (contestant, measured) in contestants.iter().zip(measured) {
        figures.set(contestant.name.clone(), measured);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn they_take_turns_and_who_fails_is_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log").display().to_string();
        let noted = log.clone();
        let noting = |name: &str| Contestant::shell(&format!("echo {name} | tee -a {log}"));
        let mut all = [
            noting("a"),
            Contestant::shell("echo no such thing >&2; exit 3"),
            noting("b"),
            Contestant::shell("echo one").printing(2),
            Contestant::shell(&format!("ls {log}")).then(|| bail!("broken")),
            Contestant::shell("echo").then(move || {
                use std::io::Write as _;
                let mut log = std::fs::OpenOptions::new().append(true).open(&noted)?;
                Ok(writeln!(log, "t")?)
            }),
        ];
        let measured = race(&mut all, 2);
        let order = std::fs::read_to_string(&log).expect("the log");
        assert_eq!(order.split_whitespace().collect::<String>(), "abtabtabt");
        assert!(measured[0].as_ref().is_ok_and(|samples| samples.min() > 0.0));
        assert_eq!(measured[1], Err("ended with exit status: 3: no such thing".to_owned()));
        assert!(measured[2].is_ok());
        assert_eq!(measured[3], Err("prints 1 lines, and has to print 2".to_owned()));
        assert_eq!(measured[4], Err("to tidy up: broken".to_owned()));
        assert!(measured[5].is_ok());
    }

    #[test]
    fn who_tells_is_not_held_against_the_clock() {
        let telling =
            |line: &str| Contestant::shell(line).telling(|said| Ok(said.trim().parse::<f64>()?));
        let mut all = [
            telling("echo 7000"),
            telling("echo 7000").then(|| bail!("broken")),
            telling("echo soon"),
            telling("echo 1; exit 3"),
        ];
        let measured = race(&mut all, 2);
        assert_eq!(measured[0], Ok(Samples::new(vec![7000.0, 7000.0]).expect("two")));
        assert_eq!(measured[1], Err("to tidy up: broken".to_owned()));
        assert_eq!(measured[2], Err("invalid float literal".to_owned()));
        assert_eq!(measured[3], Err("ended with exit status: 3: nothing said".to_owned()));
    }
}
