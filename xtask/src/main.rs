//! `cargo xtask`: the project's own tasks, one file each.

mod apt;
mod commands;
mod demo;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// ucr's own tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Args),
    Test(test::Args),
    Demo(demo::Args),
    Tidy(tidy::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Xtask::parse().verb {
        Verb::Setup(args) => args.run(),
        Verb::Test(args) => args.run(),
        Verb::Demo(args) => args.run(),
        Verb::Tidy(args) => args.run(),
    }
}
