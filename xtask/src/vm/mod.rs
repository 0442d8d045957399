//! `cargo xtask vm`: runs a command, or the integration tests, on stock Debian kernels.
//!
//! The machine is QEMU without hardware virtualisation, as it is to be had everywhere: 5 to 9 times
//! slower than the host. Its root is the host's own, which it cannot change, so that everything that
//! is installed and built here is there, in the same places.

mod bzimage;
mod cache;
pub(crate) mod child;
mod console;
mod cpio;
mod guest;
mod job;
mod kernel;
mod machine;
mod modules;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Result, ensure};

pub(crate) use self::{
    guest::busybox,
    job::{Destination, End, Job, Limits, Outcome, run},
    kernel::Kernel,
    machine::{qemu, virtiofsd},
};
use crate::{commands, setup, test};

/// Run a command on stock Debian kernels in virtual machines
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel: 6.1, 6.12 or all, one after the other
    #[arg(long, default_value = "all", value_name = "KERNEL")]
    kernel: Choice,
    #[command(flatten)]
    limits: Limits,
    /// The command; without one, the integration tests are run
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Which kernels.
#[derive(Clone, Debug)]
pub(crate) struct Choice(Vec<Kernel>);

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "all" => Ok(Self(Kernel::ALL.to_vec())),
            name => name.parse().map(|kernel| Self(vec![kernel])),
        }
    }
}

/// The status when there is none of the command, as that of other programs that run one.
const NO_STATUS: u8 = 125;

impl Args {
    /// Does it; the exit code is the command's.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.command.is_empty() {
            return test::run_on(&self.kernel.0, self.limits);
        }
        let mut job = Job::new(&self.command);
        self.limits.apply(&mut job);
        job.destination = Destination::Shown;
        let mut code = 0;
        for kernel in self.kernel.0 {
            let status = show(kernel, &job).unwrap_or_else(|error| {
                eprintln!("vm: {error:#}");
                NO_STATUS
            });
            if code == 0 {
                code = status;
            }
        }
        Ok(ExitCode::from(code))
    }
}

/// Sees to it that a kernel can be booted: that programs and the kernel are there, and we are root.
pub(crate) fn prepare(kernel: Kernel) -> Result<()> {
    ensure!(commands::is_root(), "needs root, to give a machine the host's root read-only");
    setup::ensure_vms()?;
    cache::prepare(kernel).map(drop)
}

/// Runs a job on a kernel and says what is worth knowing; the command's status.
fn show(kernel: Kernel, job: &Job) -> Result<u8> {
    prepare(kernel)?;
    let outcome = run(kernel, job)?;
    for line in outcome.console.oddities() {
        eprintln!("vm: the kernel says: {line}");
    }
    let status = outcome.status()?;
    eprintln!(
        "vm: Linux {}: status {status} (booted in {:.1} s, {:.1} s in all)",
        outcome.release,
        outcome.boot.as_secs_f32(),
        outcome.whole.as_secs_f32()
    );
    Ok(status)
}
