//! The tests on this host: all of the workspace, by cargo.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    libtest::{self, Verdict},
    matrix::{Fault, Matrix, Row, RunResult},
};
use crate::commands;

/// Runs them, showing what they print.
pub(super) fn run(filter: Option<&str>, is_quick: bool, all_must_run: bool) -> Result<Matrix> {
    let ucr = env::current_exe().context("find out where xtask is")?.with_file_name("ucr");
    let mut skipped = tempfile::NamedTempFile::new().context("make a temporary file")?;
    let mut test = commands::cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    if is_quick {
        test.args(["--", "--skip", "slow::"]);
    }
    // Cargo puts all programs of one profile in one folder, ours and ucr.
    test.env("UCR_BIN", &ucr).env("UCR_SKIPPED", skipped.path());
    // Told to be quiet, cargo has the tests print dots, and no names.
    test.env_remove("CARGO_TERM_QUIET");
    if all_must_run {
        test.env("UCR_NO_SKIP", "1");
    }
    let (status, output) = shown(&mut test)?;

    let mut tests = libtest::tests(&output);
    let mut names = String::new();
    skipped.read_to_string(&mut names).context("read which tests were skipped")?;
    libtest::skip(&mut tests, &names);
    let mut matrix = Matrix::default();
    // Again, next to the table: what else there was is a thousand lines long.
    let failures = libtest::failures(&output);
    if !failures.is_empty() {
        matrix.told.push(format!("host:\n{failures}"));
    }
    if !status.success() && tests.iter().all(|test| test.verdict != Verdict::Failed) {
        matrix
            .faults
            .push(Fault(format!("host: cargo test failed without a failed test ({status})")));
    }
    let kernel = nix::sys::utsname::uname().context("ask for the kernel's name")?;
    let kernel = format!("{} (host)", kernel.release().display());
    let result = RunResult::Ran(tests);
    matrix.rows.push(Row { kernel, backend: backend(&ucr)?, result });
    Ok(matrix)
}

/// Runs a command and passes its standard output on.
fn shown(command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("run cargo")?;
    let mut pipe = BufReader::new(child.stdout.take().context("its output is a pipe")?);
    let mut output = String::new();
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).context("read from cargo")? > 0 {
        // Nobody has to listen.
        let _shown = std::io::stdout().lock().write_all(&line);
        output.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok((child.wait().context("wait for cargo")?, output))
}

/// The backend that ucr chooses here.
fn backend(ucr: &Path) -> Result<String> {
    let features = commands::run_quietly(Command::new(ucr).args(["features", "--json"]))?;
    let features: Value = serde_json::from_str(&features).context("read ucr's features")?;
    let backend = features.get("backend").and_then(Value::as_str);
    Ok(backend.context("ucr features names no backend")?.to_owned())
}
