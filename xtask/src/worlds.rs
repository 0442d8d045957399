//! `cargo xtask worlds`: random worlds of sockets, dumped, restored and dumped again, as many as one likes.
//! The test itself is the program `worlds` of the package `ucr-tests`.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{commands, setup};

/// Make random worlds of sockets, dump, restore and dump them again: the images have to be equal
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many (200 if nothing is said)
    #[arg(long)]
    count: Option<u64>,
    /// What chance begins with; the worlds after the first have the numbers that follow
    #[arg(long)]
    seed: Option<u64>,
    /// Print how often each operation took place, and what was in the images
    #[arg(long)]
    verbose: bool,
    /// More options of the test: `worlds --help` lists them
    #[arg(last = true)]
    rest: Vec<OsString>,
}

impl Args {
    /// Does it; fails if one of them did not come out equal.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        if !commands::is_root() {
            bail!("random worlds are traced, dumped and restored: run it as root");
        }
        let mut build = commands::cargo();
        build.args(["build", "--package", "ucr-userspace", "--package", "ucr-tests"]);
        if !build.arg("--bins").status().context("run cargo")?.success() {
            bail!("the test of random worlds could not be built");
        }
        // Cargo puts all programs of one profile in one folder.
        let own = env::current_exe().context("find out where xtask is")?;
        let mut worlds = Command::new(own.with_file_name("worlds"));
        worlds.env("UCR_BIN", own.with_file_name("ucr")).args(self.options());
        let status = worlds.status().context("run the test of random worlds")?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn options(&self) -> Vec<OsString> {
        let numbers = [("--count", self.count), ("--seed", self.seed)];
        let mut words: Vec<OsString> = numbers
            .into_iter()
            .filter_map(|(flag, value)| Some([flag.into(), value?.to_string().into()]))
            .flatten()
            .collect();
        words.extend(self.verbose.then(|| "--verbose".into()));
        words.extend(self.rest.iter().cloned());
        words
    }
}
