//! The first act: a server with clients is taken down in the middle of a conversation, and fresh
//! programs carry it on.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    Figures, compare,
    stage::Stage,
    talk::{Line, Talk},
};

/// Clients of the listeners; one more process talks through a socketpair.
const CLIENTS: usize = 4;
/// Messages of each after the restore.
const MORE: u64 = 500;
/// Clients that come after the restore: one by path, one by abstract name.
const NEWCOMERS: u64 = 2;
/// Lines of the trace that are shown.
const SHOWN: usize = 18;

/// Plays it; tracing is attached.
pub(super) fn act(stage: &Stage<'_>) -> Result<Figures> {
    let name = format!("ucr-demo-{}", std::process::id());
    let mut talk = begin(stage, &name)?;
    let paused = pause(&mut talk)?;
    stage.say(&format!(
        "{} connections, {} messages so far. Between two messages, dump and end them all:",
        paused.connections.len(),
        paused.messages
    ));
    stage.ucr(&format!("dump --pid {} --tree --kill -o talk.ucr", talk.pid)).show()?;
    stage.ended(talk.pid)?;
    stage.say("They are dead. What the image holds:");
    stage.ucr("show talk.ucr").show()?;
    let image = stage.ucr("show talk.ucr").json()?;

    stage.say("Bring the sockets back, into fresh programs:");
    let mut fresh = bring_back(stage, &paused, &image)?;
    let ready = fresh.hear("ready", paused.clients.len() + 1)?;
    let pids = renumbering(&paused, &ready)?;
    stage.say("Before they go on: a dump of the fresh programs, to be compared with the image:");
    let dumped = stage.ucr(&format!("dump --pid {} --tree -o again.ucr", fresh.pid)).json()?;
    let again = stage.ucr("show again.ucr").json()?;
    let compared = compare::images(&image, &again, &pids)?;
    for difference in &compared.differences {
        println!("differs: {difference}");
    }
    println!("{} of {} sockets are as they were", compared.same, compared.sockets);
    ensure!(count(&dumped["counts"], "conflict")? == 0, "the fresh sockets have conflicts");

    let after = go_on(stage, &mut fresh, &paused, &name)?;
    let verdicts = &image["origin"]["verdicts"];
    Ok(Figures {
        sockets: length(&image["sockets"])?,
        confirmed: count(verdicts, "confirmed")?,
        conflicts: count(verdicts, "conflict")?,
        restored: length(&again["sockets"])?,
        verified: compared.same,
        messages: paused.messages + after,
        // Each one ends the demo.
        jumps: 0,
    })
}

/// Starts the server and follows its beginnings.
fn begin(stage: &Stage<'_>, name: &str) -> Result<Talk> {
    stage.say("Programs start to talk; ucr watches.");
    let filter = ["trace", "--comm", "victim"].map(str::to_owned);
    let trace = stage.start_writing("trace", "ucr", &filter)?;
    let read = |kind| fs::read_to_string(stage.path(kind)).context("read what ucr trace wrote");
    stage.until("ucr trace to follow", || {
        Ok(read("trace.err")?.contains("following").then_some(()))
    })?;
    let path = stage.path("talk.sock").display().to_string();
    let clients = CLIENTS.to_string();
    let arguments = ["talk", "serve", &path, name, &clients].map(str::to_owned);
    let talk = Talk::new(stage.start_talking("victim", &arguments)?)?;
    talk.hear("under-way", CLIENTS + 1)?;
    let pid = i32::try_from(trace.pid).context("a pid")?;
    kill(Pid::from_raw(pid), Signal::SIGINT).context("end ucr trace")?;
    let status = stage.ended(trace.pid)?;
    let (shown, said) = (read("trace.out")?, read("trace.err")?);
    ensure!(status.success(), "ucr trace ended with {status}: {said}");
    for line in shown.lines().take(SHOWN) {
        println!("{line}");
    }
    let more = shown.lines().count().saturating_sub(SHOWN);
    if more > 0 {
        println!("… {more} more");
    }
    print!("{said}");
    Ok(talk)
}

/// Where everybody stopped.
struct Paused {
    /// Clients by name.
    clients: BTreeMap<String, Line>,
    /// The server's connections.
    connections: Vec<Line>,
    /// The server's listeners, parted by commas.
    listeners: String,
    server: u64,
    messages: u64,
}

fn pause(talk: &mut Talk) -> Result<Paused> {
    talk.tell("pause\n")?;
    let clients = talk.hear("paused", CLIENTS + 1)?;
    talk.tell("state\n")?;
    // The connections, and then the server itself.
    let mut connections = talk.hear("server", clients.len() + 1)?;
    let own = connections.pop().context("the server's own state")?;
    let mut messages = 0;
    for connection in &connections {
        messages += connection.number("messages")?;
    }
    Ok(Paused {
        clients: clients.into_iter().map(|line| (line.name.clone(), line)).collect(),
        connections,
        listeners: own.text("listeners")?.to_owned(),
        server: own.number("pid")?,
        messages,
    })
}

/// Restores: the server's part with what it waits for, each client with its next number.
fn bring_back(stage: &Stage<'_>, paused: &Paused, image: &Value) -> Result<Talk> {
    let mut expected = Vec::new();
    for connection in &paused.connections {
        expected.push(format!("{}:{}", connection.number("fd")?, connection.number("next")?));
    }
    let mut call = stage.ucr("restore talk.ucr");
    for process in image["processes"].as_array().context("the image's processes")? {
        let pid = process["pid"].as_u64().context("a saved pid")?;
        let command = if pid == paused.server {
            let (listeners, expected) = (&paused.listeners, expected.join(","));
            format!("victim talk continue {listeners} {expected} {NEWCOMERS}")
        } else {
            let line = paused.clients.values().find(|line| line.number("pid").ok() == Some(pid));
            let Some(line) = line else { bail!("process {pid} of the image is nobody's") };
            let (fd, next) = (line.number("fd")?, line.number("next")?);
            format!("victim talk resume {} {fd} {next} {MORE}", line.name)
        };
        call = call.with(format!("--exec={pid}={command}"));
    }
    Talk::new(call.start_talking()?)
}

/// Which fresh process has taken which saved one's place.
fn renumbering(paused: &Paused, ready: &[Line]) -> Result<BTreeMap<u64, u64>> {
    let mut pids = BTreeMap::new();
    for line in ready {
        let saved = match paused.clients.get(&line.name) {
            Some(client) => client.number("pid")?,
            None => paused.server,
        };
        pids.insert(saved, line.number("pid")?);
    }
    Ok(pids)
}

/// The conversation goes on, and the listeners listen; the messages that were answered.
fn go_on(stage: &Stage<'_>, fresh: &mut Talk, paused: &Paused, name: &str) -> Result<u64> {
    stage.say("They go on where the others stopped; two newcomers call at the old names.");
    fresh.tell(&"x".repeat(paused.clients.len()))?;
    let path = stage.path("talk.sock").display().to_string();
    let places = [("by-path", format!("path:{path}")), ("by-name", format!("abstract:{name}"))];
    for (who, place) in places {
        let arguments = ["talk", "ask", who, "1", &place, "100"].map(str::to_owned);
        let newcomer = Talk::new(stage.start_talking("victim", &arguments)?)?;
        let done = newcomer.hear("done", 1)?;
        for line in &done {
            println!("{}: {} messages", line.name, line.number("messages")?);
        }
        let status = stage.ended(newcomer.pid)?;
        ensure!(status.success(), "the newcomer ended with {status}");
    }
    let done = fresh.hear("done", paused.clients.len() + 1)?;
    let status = stage.ended(fresh.pid)?;
    ensure!(status.success(), "the fresh server ended with {status}");
    let mut answered = 0;
    for line in &done {
        let messages = line.number("messages")?;
        if line.name == "server" {
            answered = messages;
            let newcomers = line.number("newcomers")?;
            println!("server: {messages} messages, {newcomers} newcomers");
            ensure!(newcomers == NEWCOMERS, "not all newcomers were served");
        } else {
            let before = paused.clients.get(&line.name).context("a client")?.number("next")?;
            println!("{}: {messages} messages from number {before} on", line.name);
            ensure!(messages == MORE, "{} did not say all", line.name);
        }
    }
    Ok(answered)
}

/// How long a list is.
pub(super) fn length(list: &Value) -> Result<u64> {
    let length = list.as_array().context("a list in ucr's JSON")?.len();
    u64::try_from(length).context("a length")
}

/// A figure by its name.
pub(super) fn count(figures: &Value, name: &str) -> Result<u64> {
    figures[name].as_u64().with_context(|| format!("the figure {name} in ucr's JSON"))
}
