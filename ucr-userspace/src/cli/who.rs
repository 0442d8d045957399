//! `ucr who`: who is on the other end of a socket.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::ExitCode,
};

use super::{
    access::{Access, AccessArgs},
    ask, exit,
    report::say,
};
use crate::{
    daemon::protocol::About,
    inspect,
    model::UnixName,
    query::who::Target,
    render::{output::unless_broken_pipe, who},
    tracer::pins::PinDirectory,
};

/// Say who is on the other end of a socket, since when, and who made it
///
/// Both ends with every process that holds them; for a listener all its connections, also those that nobody
/// has accepted yet. When and by whom a socket was made, bound, connected and accepted is known if tracing is
/// attached; what is older than the tracer is marked so.
#[derive(Clone, Debug, clap::Args)]
pub struct WhoArgs {
    /// PATH, @ABSTRACT-NAME, PID (all its sockets), PID:FD, inode:N or cookie:N
    #[arg(value_name = "SOCKET", required = true)]
    targets: Vec<Target>,
    /// As JSON, with exact names
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// A relative path means what it means here: the daemon is somewhere else.
fn absolute(target: &Target) -> Target {
    let Target::Name(name @ UnixName::Pathname(path)) = target else { return target.clone() };
    if !name.is_relative_path() {
        return target.clone();
    }
    match std::path::absolute(Path::new(OsStr::from_bytes(path))) {
        Ok(path) => Target::Name(UnixName::Pathname(path.into_os_string().into_encoded_bytes())),
        // Whoever is nowhere has to be content with the name as it is.
        Err(_) => target.clone(),
    }
}

/// Runs the verb. That there is no such socket is a failure.
///
/// # Errors
/// Nobody who answers.
pub fn run(args: &WhoArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let mut answers = Vec::new();
    for target in args.targets.iter().map(absolute) {
        let target = &target;
        answers.push(match args.access.open(pins)? {
            Access::Kernel(kernel) => {
                inspect::who::who(&kernel.programs, kernel.store.as_ref(), target)?
            }
            Access::Daemon(client) => ask::who(client, About::Who(target.clone()))?,
        });
    }
    let mut out = io::stdout().lock();
    let written = if args.json {
        who::json(&answers, &mut out)
    } else {
        answers.iter().try_for_each(|answer| write!(out, "{}", who::Text(answer)))
    };
    unless_broken_pipe(written.and_then(|()| out.flush()))?;
    let mut code = exit::OK;
    for answer in &answers {
        for note in &answer.notes {
            say(&format!("warning: {note}"));
        }
        if answer.subjects.is_empty() {
            say(&format!("there is no unix socket {}", answer.target));
            code = exit::FAILED;
        }
    }
    Ok(ExitCode::from(code))
}
