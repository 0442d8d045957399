//! `cargo xtask test`: builds `ucr` and runs the tests on it.

use std::{
    env,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result};

use crate::{commands, setup};

/// Build ucr and run the tests; its exit code is the test runner's
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Leave out the stories that take long: those in `slow`
    #[arg(long)]
    quick: bool,
}

impl Args {
    /// Does it. Where `CI` is set, a test that cannot run here fails instead of being skipped.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        if !commands::is_root() {
            eprintln!(
                "test: not run as root, without which no test can load an eBPF program or take \
                 another process's sockets: `sudo -E cargo xtask test`"
            );
        }

        // All that is tested in one go, so that every crate is built with one set of features.
        let mut build = commands::cargo();
        let built = status(build.args(["build", "--workspace", "--bins", "--tests"]))?;
        if !built.success() {
            return Ok(exit_code(built));
        }

        let mut test = commands::cargo();
        test.args(["test", "--workspace", "--no-fail-fast"]);
        test.args(self.filter);
        if self.quick {
            test.args(["--", "--skip", "slow::"]);
        }
        // Cargo puts all programs of one profile in one folder, ours and ucr.
        let program = env::current_exe().context("find out where xtask is")?.with_file_name("ucr");
        test.env("UCR_BIN", program);
        if env::var_os("CI").is_some() {
            test.env("UCR_NO_SKIP", "1");
        }
        Ok(exit_code(status(&mut test)?))
    }
}

fn status(cargo: &mut Command) -> Result<ExitStatus> {
    cargo.status().context("run cargo")
}

/// The same code for ourselves; 1 if a signal ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}
