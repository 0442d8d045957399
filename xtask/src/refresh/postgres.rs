//! A PostgreSQL of our own: it does not run as root, and does not go without a trace if it is killed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    cast::{self, Server, Stage, text},
    transport::Where,
};
use crate::{commands, setup};

/// A cluster of databases, and how it is started.
pub(super) struct Made {
    pub(super) server: Server,
    pub(super) pid_file: PathBuf,
}

/// Makes one.
pub(super) fn make(stage: &Stage) -> Result<Made> {
    let folder = &stage.folder;
    let programs = programs(folder)?;
    let own = cast::of_nobody(folder)?;
    let data = own.join("data");

    let mut initialise = programs.command("initdb");
    initialise.extend(["-D".to_owned(), text(&data)]);
    let options = ["-U", "postgres", "--auth=trust", "--no-locale", "--no-sync", "-E", "UTF8"];
    initialise.extend(options.map(str::to_owned));
    let (program, arguments) = initialise.split_first().context("a command")?;
    // It goes to where it was started, which has to be open to nobody.
    commands::run_quietly(Command::new(program).args(arguments).current_dir("/"))?;

    // The name of its socket follows from the port.
    let at = stage.transport.at(own.join(".s.PGSQL.5432"))?;
    let (sockets, addresses, port) = match &at {
        Where::Path(_) => (text(&own), "", 5432),
        Where::Port(port) => (String::new(), "127.0.0.1", *port),
    };
    let mut command = programs.command("postgres");
    command.extend(["-D".to_owned(), text(&data), "-k".to_owned(), sockets]);
    command.extend(["-h".to_owned(), addresses.to_owned(), "-p".to_owned(), port.to_string()]);
    // What it says once it has begun shall be what is wrong.
    for setting in ["fsync=off", "log_checkpoints=off", "jit=off"] {
        command.extend(["-c".to_owned(), setting.to_owned()]);
    }
    let server = Server { command, at };
    Ok(Made { server, pid_file: data.join("postmaster.pid") })
}

/// Where its programs are, and the libraries that were unpacked with them.
struct Programs {
    folder: PathBuf,
    libraries: Option<PathBuf>,
}

/// Those that are installed, or else a copy of those in `.tools/`, which may be in a folder that is not for everybody.
fn programs(folder: &Path) -> Result<Programs> {
    let installed = setup::postgres().context("find PostgreSQL's programs")?;
    let unpacked = commands::unpacked_postgres();
    let Ok(below) = installed.strip_prefix(&unpacked) else {
        return Ok(Programs { folder: installed, libraries: None });
    };
    let copied = folder.join("unpacked");
    commands::run_quietly(Command::new("cp").arg("-a").arg(&unpacked).arg(&copied))?;
    let libraries = copied.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    Ok(Programs { folder: copied.join(below), libraries: Some(libraries) })
}

impl Programs {
    /// A command that becomes one of them. Its memory that other processes could attach goes with it, by whatever
    /// it ends, since it is in a namespace of its own.
    fn command(&self, name: &str) -> Vec<String> {
        let mut command = ["unshare", "--ipc", "--"].map(str::to_owned).to_vec();
        command.extend(cast::as_nobody());
        if let Some(libraries) = &self.libraries {
            command.extend(["env".to_owned(), format!("LD_LIBRARY_PATH={}", libraries.display())]);
        }
        command.push(text(&self.folder.join(name)));
        command
    }
}
