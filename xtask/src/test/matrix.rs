//! What came of all runs, as a table: kernel by backend, passed, failed, skipped and why.

use std::{collections::BTreeMap, fmt};

use super::libtest::{Test, Verdict};

/// A line of the matrix.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kernel: String,
    pub(super) backend: String,
    pub(super) result: RunResult,
}

/// What came of a run.
#[derive(Debug)]
pub(super) enum RunResult {
    /// Its tests ran.
    Ran(Vec<Test>),
    /// It could not begin.
    NotRun(String),
}

/// Something that failed and is no test: a program that crashed, a machine that hung.
#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub(super) rows: Vec<Row>,
    pub(super) faults: Vec<Fault>,
    /// What is to be read before the table: what failed tests printed, for one.
    pub(super) told: Vec<String>,
}

impl Row {
    fn names(&self, wanted: &Verdict) -> impl Iterator<Item = &str> {
        let tests = match &self.result {
            RunResult::Ran(tests) => tests.as_slice(),
            RunResult::NotRun(_) => &[],
        };
        tests.iter().filter(move |test| test.verdict == *wanted).map(|test| test.name.as_str())
    }

    /// Each reason for which tests were skipped, with how many were.
    fn skipped(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        if let RunResult::Ran(tests) = &self.result {
            for test in tests {
                if let Verdict::Skipped(why) = &test.verdict {
                    *reasons.entry(why.as_str()).or_default() += 1;
                }
            }
        }
        reasons
    }
}

impl Matrix {
    /// Adds another one's lines after our own.
    pub(super) fn append(&mut self, mut other: Self) {
        self.rows.append(&mut other.rows);
        self.faults.append(&mut other.faults);
        self.told.append(&mut other.told);
    }

    /// Whether nothing failed. A run that could not begin is a failure only where everything has
    /// to run.
    pub(super) fn is_good(&self, all_must_run: bool) -> bool {
        self.faults.is_empty()
            && self.rows.iter().all(|row| match &row.result {
                RunResult::Ran(_) => row.names(&Verdict::Failed).next().is_none(),
                RunResult::NotRun(_) => !all_must_run,
            })
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = self.rows.iter().map(|row| row.kernel.len()).max().unwrap_or_default().max(6);
        writeln!(
            f,
            "{:kernel$}  {:10}  {:>6}  {:>6}  {:>7}",
            "kernel", "backend", "passed", "failed", "skipped"
        )?;
        for row in &self.rows {
            write!(f, "{:kernel$}  {:10}  ", row.kernel, row.backend)?;
            if let RunResult::NotRun(why) = &row.result {
                writeln!(f, "not run: {why}")?;
                continue;
            }
            let passed = row.names(&Verdict::Passed).count();
            let failed = row.names(&Verdict::Failed).count();
            let reasons = row.skipped();
            let skipped: usize = reasons.values().sum();
            write!(f, "{passed:>6}  {failed:>6}  {skipped:>7}")?;
            let reasons: Vec<String> =
                reasons.iter().map(|(why, count)| format!("{why} ({count})")).collect();
            if !reasons.is_empty() {
                write!(f, "   {}", reasons.join(", "))?;
            }
            writeln!(f)?;
        }
        for row in &self.rows {
            for name in row.names(&Verdict::Failed) {
                writeln!(f, "failed: {} {}: {name}", row.kernel, row.backend)?;
            }
        }
        for Fault(fault) in &self.faults {
            writeln!(f, "failed: {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kernel: &str, verdicts: &[(&str, Verdict)]) -> Row {
        let test = |(name, verdict): &(&str, Verdict)| Test {
            name: (*name).to_owned(),
            verdict: verdict.clone(),
        };
        let result = RunResult::Ran(verdicts.iter().map(test).collect());
        Row { kernel: kernel.to_owned(), backend: "tracepoint".to_owned(), result }
    }

    fn not_run() -> Row {
        let result = RunResult::NotRun("no QEMU".to_owned());
        Row { kernel: "6.1".to_owned(), backend: "trampoline".to_owned(), result }
    }

    #[test]
    fn the_table_counts_and_names() {
        let skipped = Verdict::Skipped("needs root".to_owned());
        let first = row(
            "6.18.44 (host)",
            &[
                ("a", Verdict::Passed),
                ("b", skipped.clone()),
                ("c", skipped),
                ("d::e", Verdict::Failed),
            ],
        );
        let faults = vec![Fault("6.1: the kernel panicked".to_owned())];
        let matrix = Matrix { rows: vec![first, not_run()], faults, told: Vec::new() };
        let expected = "\
kernel          backend     passed  failed  skipped
6.18.44 (host)  tracepoint       1       1        2   needs root (2)
6.1             trampoline  not run: no QEMU
failed: 6.18.44 (host) tracepoint: d::e
failed: 6.1: the kernel panicked
";
        assert_eq!(matrix.to_string(), expected);
    }

    #[test]
    fn whatever_failed_makes_it_bad() {
        let good = || row("6.1", &[("a", Verdict::Passed), ("b", Verdict::Skipped(String::new()))]);
        let of = |rows| Matrix { rows, ..Matrix::default() };
        assert!(of(vec![good()]).is_good(true));
        assert!(!of(vec![good(), row("6.12", &[("a", Verdict::Failed)])]).is_good(false));
        assert!(of(vec![good(), not_run()]).is_good(false));
        assert!(!of(vec![good(), not_run()]).is_good(true));
        let faults = vec![Fault("a hang".to_owned())];
        assert!(!Matrix { rows: vec![good()], faults, told: Vec::new() }.is_good(false));
    }
}
