//! A program that builds any world of unix sockets on command, for ucr to trace, dump and restore;
//! one that holds a conversation (`victim talk …`), for the demonstration; and one that has very many sockets
//! (`victim crowd …`, `victim hold …`), for benchmarks.

mod crowd;
mod files;
mod gently;
mod hold;
mod internet;
mod messages;
mod settings;
mod talk;
mod waits;
mod world;

use std::{
    env,
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

fn main() -> ExitCode {
    // Nobody is left to look after us once our parent is gone.
    let bound = set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = bound.and_then(|()| match words.as_slice() {
        ["crowd", rest @ ..] => crowd::run(rest),
        ["hold", rest @ ..] => hold::run(rest),
        ["talk", rest @ ..] => talk::run(rest),
        [base] => obey(Path::new(base)),
        _ => Err(io::Error::other("usage: victim CONTROL | victim crowd|hold|talk …")),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("victim {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// One line in, one line out, until there are no more.
fn obey(base: &Path) -> io::Result<()> {
    let (mut orders, mut answers) = ucr_tests::control::answer(base)?;
    writeln!(answers, "ready {}", std::process::id())?;
    let mut world = world::World::new(PathBuf::from(base));
    let mut line = String::new();
    while orders.read_line(&mut line)? > 0 {
        match world.obey(line.trim_end()) {
            Ok(answer) => writeln!(answers, "ok {answer}")?,
            Err(error) => writeln!(answers, "err {error}")?,
        }
        line.clear();
    }
    Ok(())
}
