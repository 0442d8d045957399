//! What tracing costs whoever is traced: loops of system calls with nothing attached, with empty programs on
//! ucr's hooks (the floor: what any program there costs), and with ucr's own. `cargo xtask bench trace` runs
//! it, here or in a guest.
//!
//! ```text
//! overhead run --backend BACKEND        rounds of (nothing, empty, ucr), as one line of JSON
//! overhead profile --backend BACKEND    how often each of ucr's programs runs in each loop, and how long
//! overhead verifier                     how many instructions the verifier followed in each program
//! ```

mod floor;
mod loops;
mod profile;
mod rounds;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::json;
use ucr::tracer::hooks::{Backend, Choice};
use ucr_tests::verifier;

#[derive(Parser)]
#[command(name = "overhead")]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Rounds of (nothing, empty, ucr)
    Run(rounds::Args),
    /// How often each program runs in each loop, and how long
    Profile {
        /// How sockets are traced
        #[arg(long, value_enum)]
        backend: Backend,
    },
    /// How many instructions the verifier followed in each program
    Verifier,
}

fn main() -> Result<ExitCode> {
    let answer = match Program::parse().verb {
        Verb::Run(args) => rounds::run(&args)?,
        Verb::Profile { backend } => profile::run(backend)?,
        Verb::Verifier => {
            let loaded = verifier::load_all()?;
            json!({ "kernel": kernel(), "programs": loaded.counts, "refused": loaded.refused })
        }
    };
    println!("{answer}");
    Ok(ExitCode::SUCCESS)
}

/// Of one backend, and no other in its place.
fn only(backend: Backend) -> Choice {
    Choice { backend: Some(backend), without: Vec::new() }
}

/// Its release.
fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
