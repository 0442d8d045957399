//! `cargo xtask refresh-programs`: real programs out of Debian's packages go on while all their sockets are replaced,
//! again and again, by `ucr refresh`.
//!
//! Clients talk with each program all the while and hold every answer against the one expected: over unix sockets, and
//! over TCP with those that can. Each is done twice: with the clients outside, whose connections over unix sockets are
//! kept as they are, while over TCP the program's end of each is replaced; and with program and clients in one tree,
//! where both ends of every connection are replaced. `UCR_BIN` names the `ucr` to use; without it, it is built.

mod cast;
mod play;
mod postgres;
mod procfs;
mod talk;
mod transport;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::{commands, leftovers::Folder, setup};
use cast::{PROGRAMS, Program, Stage};
use play::{Outcome, Scale, Variant};
use transport::Transport;

/// Replace the sockets of real programs while clients talk with them
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the sockets of each are replaced
    #[arg(long, default_value_t = 20)]
    refreshes: u32,
    /// Clients in the tree that come and go all the while, beside those that stay
    #[arg(long, default_value_t = 1)]
    newcomers: u32,
    /// The same outside
    #[arg(long, default_value_t = 1)]
    newcomers_outside: u32,
    /// Only this program; may be given several times
    #[arg(long, value_name = "NAME", value_parser = names())]
    only: Vec<String>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(PROGRAMS.iter().map(|program| program.name))
}

impl Args {
    /// Does it; fails if a client or a program noticed anything, or sockets were not replaced.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::ensure()?;
        if !commands::is_root() {
            bail!("sockets are taken from processes and given to them: run it as root");
        }
        let chosen: Vec<&Program> = PROGRAMS
            .iter()
            .filter(|program| self.only.is_empty() || self.only.iter().any(|n| n == program.name))
            .collect();
        for program in &chosen {
            (program.ensure)()?;
        }
        let ucr = ucr()?;
        let folder = Folder::new("ucr-refresh-")?;
        // PostgreSQL does not run as root, and has its sockets in there.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))
            .with_context(|| format!("open {} to others", folder.path().display()))?;
        let mut is_well = true;
        for program in chosen {
            let all = program.over.iter().flat_map(|over| Variant::ALL.map(|each| (*over, each)));
            for (transport, variant) in all {
                let name = [program.name, transport.word(), variant.word()].join("-");
                let stage = Stage { folder: folder.path().join(name), transport };
                fs::create_dir(&stage.folder)
                    .with_context(|| format!("create {}", stage.folder.display()))?;
                let newcomers = match variant {
                    Variant::Outside => self.newcomers_outside,
                    Variant::Inside => self.newcomers,
                };
                let scale = Scale { refreshes: self.refreshes, newcomers };
                let outcome = play::play(program, variant, scale, &ucr, &stage);
                show(program, transport, variant, &outcome);
                is_well &= outcome.errors.is_empty();
            }
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn show(program: &Program, transport: Transport, variant: Variant, outcome: &Outcome) {
    let Outcome { sockets, replaced, kept, refreshes, operations, errors, longest } = outcome;
    println!(
        "{:<14} {:<4} {:<14} sockets={sockets:<4} replaced={replaced:<4} kept={kept:<4} \
         refreshes={refreshes:<3} operations={operations:<8} errors={} longest-stop={longest:.1} ms",
        program.name,
        transport.word(),
        variant.shown(),
        errors.len(),
    );
    for error in errors {
        println!("    {error}");
    }
}

/// The `ucr` from the environment, or a fresh one.
fn ucr() -> Result<PathBuf> {
    if let Some(ucr) = env::var_os("UCR_BIN") {
        return Ok(ucr.into());
    }
    println!("refresh-programs: building ucr");
    let mut build = commands::cargo();
    build.args(["build", "--package", "ucr-userspace"]);
    if !build.status().context("run cargo")?.success() {
        bail!("ucr could not be built");
    }
    // Cargo puts all programs of one profile in one folder, also ours.
    let own = env::current_exe().context("find out where xtask is")?;
    own.parent().map(|folder: &Path| folder.join("ucr")).context("find the built programs")
}
