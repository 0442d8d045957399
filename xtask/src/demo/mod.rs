//! `cargo xtask demo`: the whole idea on running programs, told in a page: trace, dump, show,
//! restore into fresh programs that carry a conversation on, a stock daemon, and new sockets for it
//! while it runs.
//!
//! Everything is done by the built programs, as one would type it. The figures of the last line
//! come from what they print as JSON.
#![expect(clippy::indexing_slicing, reason = "a JSON value is null at a key that it lacks")]

mod cleanup;
mod compare;
mod conversation;
mod daemon;
mod refresh;
mod stage;
mod talk;

use std::{env, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{commands, setup};
use cleanup::Cleanup;
use stage::Stage;

/// See the whole work on running programs: trace, dump, show, restore
#[derive(clap::Args)]
pub(crate) struct Args {}

/// What came out.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// Sockets that were dumped.
    sockets: u64,
    /// Of these, seen live and in agreement with the kernel.
    confirmed: u64,
    conflicts: u64,
    /// Sockets that the fresh programs had.
    restored: u64,
    /// Of these, such as they were before.
    verified: u64,
    /// Messages that were answered, before and after.
    messages: u64,
    /// Numbers that were not the next one.
    jumps: u64,
}

impl Args {
    /// Does it; fails if anything is not as it should be.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        if !commands::is_root() {
            bail!("the demo loads eBPF programs and takes sockets from processes: run it as root");
        }
        let mut build = commands::cargo();
        build.args(["build", "--package", "ucr-userspace", "--package", "ucr-tests"]);
        build.arg("--bins");
        println!("demo: building ucr, which takes some minutes the first time");
        let built = build.status().context("run cargo")?;
        if !built.success() {
            bail!("ucr could not be built");
        }

        let start = Instant::now();
        let cleanup = Cleanup::new()?;
        let told = tell(&cleanup);
        cleanup.clean();
        let figures = told?;
        println!();
        println!(
            "demo: sockets={} confirmed={} conflicts={} restored={} verified={} messages={} \
             jumps={} seconds={:.1}",
            figures.sockets,
            figures.confirmed,
            figures.conflicts,
            figures.restored,
            figures.verified,
            figures.messages,
            figures.jumps,
            start.elapsed().as_secs_f32(),
        );
        Ok(if figures.are_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Figures {
    fn are_right(&self) -> bool {
        self.confirmed == self.sockets
            && self.conflicts == 0
            && self.restored > 0
            && self.verified == self.restored
            && self.messages > 0
            && self.jumps == 0
    }
}

fn tell(cleanup: &Cleanup) -> Result<Figures> {
    // Cargo puts all programs of one profile in one folder, also ours.
    let programs = env::current_exe().context("find out where xtask is")?;
    let stage = Stage::new(programs.parent().context("find the built programs")?, cleanup)?;
    stage.say("Tracing starts. It goes on in the kernel; no process stays behind.");
    stage.ucr("attach").show()?;
    let mut figures = conversation::act(&stage)?;
    daemon::act(&stage, &mut figures)?;
    stage.say("That is all. Tracing ends.");
    stage.ucr("detach").show()?;
    Ok(figures)
}
