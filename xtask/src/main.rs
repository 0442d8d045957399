//! `cargo xtask`: the project's own tasks, one file each.

mod apt;
mod bench;
mod commands;
mod demo;
mod leftovers;
mod refresh;
mod setup;
mod test;
mod tidy;
mod truth;
mod vm;
mod worlds;

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
    Bench(bench::Args),
    Setup(setup::Args),
    Test(test::Args),
    Demo(demo::Args),
    RefreshPrograms(refresh::Args),
    Tidy(tidy::Args),
    Truth(truth::Args),
    Vm(vm::Args),
    Worlds(worlds::Args),
    #[command(hide = true)]
    VmChild(vm::child::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Xtask::parse().verb {
        Verb::Bench(args) => args.run(),
        Verb::Setup(args) => args.run(),
        Verb::Test(args) => args.run(),
        Verb::Demo(args) => args.run(),
        Verb::RefreshPrograms(args) => args.run(),
        Verb::Tidy(args) => args.run(),
        Verb::Truth(args) => args.run(),
        Verb::Vm(args) => args.run(),
        Verb::Worlds(args) => args.run(),
        Verb::VmChild(args) => args.run(),
    }
}
