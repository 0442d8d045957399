//! The second act: a stock daemon, dumped while it runs.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use anyhow::{Context, Result, ensure};

use super::{
    Figures,
    conversation::{count, length},
    refresh,
    stage::{PATIENCE, Stage},
};

/// Plays it, and adds to the figures.
pub(super) fn act(stage: &Stage<'_>, figures: &mut Figures) -> Result<()> {
    stage.say("A program that knows nothing of ucr: Debian's redis-server on a unix socket.");
    let path = stage.path("redis.sock");
    let arguments = ["--port", "0", "--save", "", "--unixsocket", "redis.sock"];
    let server = stage.start_writing("redis", "redis-server", &arguments.map(str::to_owned))?;
    stage.until("redis-server to listen", || Ok(UnixStream::connect(&path).ok()))?;
    ensure!(ask(&path, "SET story told\r\n")? == "+OK", "redis-server does not answer");
    // It has to notice that its clients have gone.
    let descriptors = format!("/proc/{}/fd", server.pid);
    stage.until("redis-server to be alone", || {
        let entries = std::fs::read_dir(&descriptors).context("look at redis-server")?;
        let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:")).count();
        Ok((sockets == 1).then_some(()))
    })?;
    let dump = format!("dump --pid {} --leave-running -o redis.ucr", server.pid);
    stage.ucr(&dump).show()?;
    let image = stage.ucr("show redis.ucr").json()?;
    let verdicts = &image["origin"]["verdicts"];
    figures.sockets += length(&image["sockets"])?;
    figures.confirmed += count(verdicts, "confirmed")?;
    figures.conflicts += count(verdicts, "conflict")?;
    let answer = ask(&path, "GET story\r\n")?;
    println!("It has not noticed: GET story gives {}", answer.escape_debug());
    ensure!(answer == "$4\r\ntold", "redis-server has forgotten the story");
    refresh::act(stage, server.pid, &path, figures)
}

/// One request on a connection of its own; the answer without its last line end.
fn ask(path: &std::path::Path, request: &str) -> Result<String> {
    let mut client = UnixStream::connect(path).context("connect to redis-server")?;
    client.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    client.write_all(request.as_bytes()).context("ask redis-server")?;
    let mut answer = String::new();
    let lines = if request.starts_with("GET") { 2 } else { 1 };
    while answer.matches("\r\n").count() < lines {
        let mut byte = [0];
        client.read_exact(&mut byte).context("hear redis-server")?;
        answer.extend(byte.map(char::from));
    }
    Ok(answer.trim_end().to_owned())
}
