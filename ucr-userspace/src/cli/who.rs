//! `ucr who`: who is on the other end of a socket.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{
    access::{Access, AccessArgs},
    exit,
    report::say,
};
use crate::{
    daemon::protocol::About,
    inspect,
    query::who::{Answer, Target},
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

/// Runs the verb. That there is no such socket is a failure.
///
/// # Errors
/// Nobody who answers.
pub fn run(args: &WhoArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let mut answers = Vec::new();
    for target in &args.targets {
        answers.push(find(args, pins, target)?);
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

/// Finds a socket by what was typed, else by what may be meant by it.
fn find(args: &WhoArgs, pins: &PinDirectory, target: &Target) -> anyhow::Result<Answer> {
    let answer = ask(args, pins, target)?;
    if answer.subjects.is_empty() {
        for others in inspect::who::meant(target) {
            let mut subjects = Vec::new();
            for other in &others {
                subjects.extend(ask(args, pins, other)?.subjects);
            }
            if !subjects.is_empty() {
                return Ok(Answer { subjects, ..answer });
            }
        }
    }
    Ok(answer)
}

fn ask(args: &WhoArgs, pins: &PinDirectory, target: &Target) -> anyhow::Result<Answer> {
    Ok(match args.access.open(pins)? {
        Access::Kernel(kernel) => {
            inspect::who::who(&kernel.programs, kernel.store.as_ref(), target)?
        }
        Access::Daemon(client) => super::ask::who(client, About::Who(target.clone()))?,
    })
}
