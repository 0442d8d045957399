//! `cargo xtask test`: builds `ucr` and runs the tests on it: all of them on this host, and beside
//! them the integration tests on stock kernels in virtual machines. In the end there is a table.

mod guest;
mod host;
mod libtest;
mod matrix;
mod programs;
mod runs;
mod transcript;

use std::{
    env,
    process::ExitCode,
    str::FromStr,
    thread::{self, ScopedJoinHandle},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    commands, setup,
    vm::{self, Kernel, Limits},
};
use guest::How;
use matrix::Matrix;

/// Build ucr and run the tests, on this host and on stock kernels in virtual machines
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Leave out what takes long: the virtual machines, and the stories in `slow`
    #[arg(long)]
    quick: bool,
    /// Where: host, 6.1, 6.12 or all; may be given several times
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<Places>,
}

/// A place to run tests, or several.
#[derive(Clone, Debug)]
struct Places(Vec<Place>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Host,
    Guest(Kernel),
}

impl FromStr for Places {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let guests = || Kernel::ALL.map(Place::Guest);
        match name {
            "host" => Ok(Self(vec![Place::Host])),
            "all" => Ok(Self([Place::Host].into_iter().chain(guests()).collect())),
            kernel => kernel.parse().map(|kernel| Self(vec![Place::Guest(kernel)])),
        }
    }
}

impl Args {
    /// Does it. Where `CI` is set, what cannot run here fails instead of being skipped: a test as
    /// well as a machine that does not boot. Elsewhere the table says that it did not run.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        if !commands::is_root() {
            eprintln!(
                "test: not run as root, without which no test can load an eBPF program or take \
                 another process's sockets, and no other kernel be booted: `sudo -E cargo xtask test`"
            );
        }
        if !build()? {
            return Ok(ExitCode::FAILURE);
        }
        let wanted: Vec<Place> = self.kernel.iter().flat_map(|places| places.0.clone()).collect();
        let is_wanted = |place| {
            if wanted.is_empty() {
                place == Place::Host || !self.quick
            } else {
                wanted.contains(&place)
            }
        };
        let kernels: Vec<Kernel> =
            Kernel::ALL.into_iter().filter(|kernel| is_wanted(Place::Guest(*kernel))).collect();
        let filter = self.filter.as_deref();
        let matrix = thread::scope(|scope| -> Result<Matrix> {
            let guests = scope.spawn(|| on_kernels(&kernels, filter, Limits::default()));
            let mut matrix = Matrix::default();
            if is_wanted(Place::Host) {
                matrix.append(host::run(filter, self.quick, all_must_run())?);
            }
            matrix.append(joined(guests)??);
            Ok(matrix)
        })?;
        Ok(told(&matrix))
    }
}

/// Runs the integration tests on stock kernels, and nothing on this host.
pub(crate) fn run_on(kernels: &[Kernel], limits: Limits) -> Result<ExitCode> {
    setup::ensure()?;
    if !build()? {
        return Ok(ExitCode::FAILURE);
    }
    Ok(told(&on_kernels(kernels, None, limits)?))
}

/// Builds all that is tested in one go, so that every crate is built with one set of features;
/// whether that worked.
fn build() -> Result<bool> {
    let mut build = commands::cargo();
    let built = build.args(["build", "--workspace", "--bins", "--tests"]).status();
    Ok(built.context("run cargo")?.success())
}

/// Runs the integration tests on stock kernels, side by side.
fn on_kernels(kernels: &[Kernel], filter: Option<&str>, limits: Limits) -> Result<Matrix> {
    let mut matrix = Matrix::default();
    if kernels.is_empty() {
        return Ok(matrix);
    }
    let programs = programs::built()?;
    let how = How { programs: &programs, filter, all_must_run: all_must_run(), limits };
    // One after the other: apt works for one at a time.
    let ready = kernels.iter().map(|&kernel| (kernel, vm::prepare(kernel)));
    let ready: Vec<_> = ready.collect();
    thread::scope(|scope| {
        let guests = ready.into_iter().map(|(kernel, ready)| {
            scope.spawn(move || match ready {
                Ok(_) => guest::run(kernel, how),
                Err(error) => guest::not_run(kernel, &format!("{error:#}")),
            })
        });
        let guests: Vec<_> = guests.collect();
        for guest in guests {
            matrix.append(joined(guest)?);
        }
        Ok(matrix)
    })
}

/// Whether what cannot run here is a failure.
fn all_must_run() -> bool {
    env::var_os("CI").is_some()
}

/// What a thread has returned.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    // It has said why.
    thread.join().map_err(|_panic| anyhow!("a thread of xtask panicked"))
}

/// Prints what came of it all.
fn told(matrix: &Matrix) -> ExitCode {
    for text in &matrix.told {
        println!("\n{text}");
    }
    print!("\n{matrix}");
    if matrix.is_good(all_must_run()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
