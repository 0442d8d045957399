//! The guard: a process that outlives `truth`, by whatever that ends, and leaves nothing behind.

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{freezer::Freezer, own_program};

/// As `truth` sees it.
pub(crate) struct Guard {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Guard {
    /// Starts one for this folder. It has a process group of its own, so Ctrl-C does not reach it.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let mut command = own_program("guard")?;
        command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut child = command.spawn().context("start the guard")?;
        let orders = child.stdin.take();
        Ok(Self { child, orders })
    }

    /// What it is to end and remove.
    pub(crate) fn tell(&mut self, freezer: &Freezer) -> Result<()> {
        let orders = self.orders.as_mut().context("a guard that listens")?;
        writeln!(orders, "{freezer}").context("tell the guard")
    }

    /// Lets it do its work, and waits for it.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        self.orders = None;
        let status = self.child.wait().context("wait for the guard")?;
        if !status.success() {
            bail!("the guard could not clear everything away ({status})");
        }
        Ok(())
    }
}

/// The guard itself: when its input ends, so has `truth`, or it is about to.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let mut freezer = Freezer::Group(None);
    for line in io::stdin().lock().lines() {
        freezer = Freezer::parse(&line.context("read an order")?)?;
    }
    let ended = freezer.end().and_then(|()| freezer.remove());
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    ended
}
