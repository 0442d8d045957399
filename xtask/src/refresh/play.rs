//! One program: it is started, talked with, and has its sockets replaced, again and again.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    cast::{Cast, Program, Server, Stage, python},
    procfs,
    talk::Talk,
    transport::Transport,
};
use crate::leftovers::Process;

/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at for which there is nothing to wait on.
const GLANCE: Duration = Duration::from_millis(10);
/// Descriptors that are named of many.
const SHOWN: usize = 8;

const LAUNCHER: &str = include_str!("programs/launcher.py");

/// Where the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// In processes that ucr leaves alone.
    Outside,
    /// In the tree whose sockets are replaced.
    Inside,
}

impl Variant {
    pub(super) const ALL: [Self; 2] = [Self::Outside, Self::Inside];

    /// For the name of a folder.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
        }
    }

    /// For people.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Outside => "client-outside",
            Self::Inside => "both-inside",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// How often the sockets are replaced.
    pub(super) refreshes: u32,
    /// Clients that come and go all the while.
    pub(super) newcomers: u32,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// In the last image, and what became of them.
    pub(super) sockets: u64,
    pub(super) replaced: u64,
    pub(super) kept: u64,
    /// Those that were done.
    pub(super) refreshes: u32,
    /// Requests of the clients that were answered.
    pub(super) operations: u64,
    pub(super) errors: Vec<String>,
    /// The longest time in which the program stood still, in milliseconds.
    pub(super) longest: f64,
}

/// Everything for one program. All of it has ended when this returns.
pub(super) fn play(
    program: &Program,
    variant: Variant,
    scale: Scale,
    ucr: &Path,
    stage: &Stage,
) -> Outcome {
    let mut outcome = Outcome::default();
    let played = (program.cast)(stage).and_then(|cast| {
        let mut scene = Scene::begin(&cast, variant, scale.newcomers, ucr, stage)?;
        let acted = scene.wait().and_then(|()| scene.act(scale.refreshes, &mut outcome));
        let heard = scene.talk.heard();
        outcome.operations = heard.operations;
        outcome.errors.append(&mut heard.errors);
        outcome.errors.extend(scene.complaints());
        let ended = cast.pid_file.as_deref().map_or(Ok(()), end_gently);
        acted.and(ended)
    });
    if let Err(error) = played {
        outcome.errors.insert(0, format!("{error:#}"));
    }
    outcome
}

/// A program and its client, running.
struct Scene<'a> {
    variant: Variant,
    ucr: &'a Path,
    stage: &'a Stage,
    /// All that were started, the client last.
    processes: Vec<Process>,
    /// The process whose tree is to be refreshed.
    root: i32,
    talk: Talk,
    /// What all of them write to, and how long it was when all was well.
    logs: Vec<(PathBuf, u64)>,
}

impl<'a> Scene<'a> {
    fn begin(
        cast: &Cast,
        variant: Variant,
        newcomers: u32,
        ucr: &'a Path,
        stage: &'a Stage,
    ) -> Result<Self> {
        let Some(last) = cast.servers.last() else { bail!("there is no server") };
        let is_inside = variant == Variant::Inside;
        let client = cast.client.command(&last.at, newcomers);
        let log = |name: &str| stage.folder.join(name).with_extension("log");
        let mut logs = vec![log("client")];
        let mut processes = Vec::new();
        let mut command = match variant {
            Variant::Outside => {
                for (server, number) in cast.servers.iter().zip(0..) {
                    let log = log(&format!("server-{number}"));
                    processes.push(started(server, &log)?);
                    logs.push(log);
                }
                of(&client)?
            }
            Variant::Inside => {
                let servers = cast.servers.iter().zip(0..).map(|(server, number)| {
                    let log = log(&format!("server-{number}"));
                    logs.push(log.clone());
                    let at = server.at.to_string();
                    json!({ "command": server.command, "where": at, "log": log })
                });
                let servers: Vec<Value> = servers.collect();
                let plan = json!({ "servers": servers, "client": client });
                of(&python(LAUNCHER, &plan.to_string()))?
            }
        };
        let errors = created(&log("client"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut process = Process::start(&mut command)?;
        let talk = Talk::new(process.child().stdin.take(), process.child().stdout.take())?;
        processes.push(process);
        let at = if is_inside { processes.len() } else { processes.len() - 1 };
        let root = processes.get_mut(at - 1).context("the process to be refreshed")?.child().id();
        let root = i32::try_from(root).context("a process id")?;
        let logs = logs.into_iter().map(|log| (log, 0)).collect();
        Ok(Self { variant, ucr, stage, processes, root, talk, logs })
    }

    /// Waits until all are there. What they have said so far is no complaint.
    fn wait(&mut self) -> Result<()> {
        self.talk.until("its connections were there", |heard| heard.is_ready)?;
        for (log, length) in &mut self.logs {
            let found = fs::metadata(&*log);
            *length = found.with_context(|| format!("look at {}", log.display()))?.len();
        }
        Ok(())
    }

    /// Whether no connection is to stay as it is: both ends are replaced together, or one without the other.
    fn is_all_replaced(&self) -> bool {
        self.variant == Variant::Inside || self.stage.transport == Transport::Tcp
    }

    fn act(&mut self, refreshes: u32, outcome: &mut Outcome) -> Result<()> {
        for number in 1..=refreshes {
            self.talk.goes_on()?;
            let before = procfs::sockets(self.root);
            let report = self.refresh().with_context(|| format!("refresh {number}"))?;
            let after = procfs::sockets(self.root);
            let figure = |name: &str| {
                let found = report.get(name).and_then(Value::as_u64);
                found.with_context(|| format!("the figure {name} in what ucr refresh said"))
            };
            outcome.refreshes = number;
            outcome.sockets = figure("sockets")?;
            outcome.replaced = figure("replaced")?;
            outcome.kept = figure("kept")?;
            let stopped = report.get("stopped_ms").and_then(Value::as_f64);
            outcome.longest = outcome.longest.max(stopped.context("how long it stood still")?);
            ensure!(outcome.replaced > 0, "refresh {number}: nothing was replaced");
            if self.is_all_replaced() {
                // Whatever ucr says: no descriptor leads to what it led to before.
                let old = after.iter().filter(|&(key, link)| before.get(key) == Some(link));
                let old: Vec<_> = old.map(|((pid, fd), _)| format!("{fd} of {pid}")).collect();
                ensure!(
                    old.is_empty(),
                    "refresh {number}: {} of {} descriptors have the sockets of before: {}",
                    old.len(),
                    before.len(),
                    old.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ")
                );
            }
        }
        self.talk.goes_on()?;
        self.talk.end()
    }

    /// Has ucr do it, once.
    fn refresh(&self) -> Result<Value> {
        let folder = &self.stage.folder;
        let (out, err) = (folder.join("refresh.out"), folder.join("refresh.err"));
        let mut command = Command::new(self.ucr);
        command.args(["refresh", "--json", "--tree", "--pid", &self.root.to_string()]);
        // Where nobody has attached anything: it is the same whoever traces this machine.
        let pins = format!("/sys/fs/bpf/ucr-refresh-programs-{}", std::process::id());
        command.env("UCR_PIN_DIR", pins).env_remove("UCR_CLOEXEC_FDS");
        command.stdin(Stdio::null()).stdout(created(&out)?).stderr(created(&err)?);
        let status = Process::start(&mut command)?.wait()?;
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
        };
        ensure!(status.success(), "ucr refresh ended with {status}: {}", read(&err)?.trim_end());
        serde_json::from_str(&read(&out)?).context("understand what ucr refresh printed as JSON")
    }

    /// What servers and client wrote since all was well: none of them has anything else to say.
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (log, length) in &self.logs {
            let mut text = Vec::new();
            let read = File::open(log).and_then(|mut file| {
                file.seek(SeekFrom::Start(*length))?;
                file.read_to_end(&mut text)
            });
            let name = log.file_stem().unwrap_or_default().display();
            if let Err(error) = read {
                complaints.push(format!("{name}: its log cannot be read: {error}"));
            }
            let text = String::from_utf8_lossy(&text);
            complaints.extend(text.lines().map(|line| format!("{name}: {line}")));
        }
        complaints
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        // Clients first: else they would see their servers go.
        while self.processes.pop().is_some() {}
    }
}

/// Starts a server, and waits until it listens.
fn started(server: &Server, log: &Path) -> Result<Process> {
    let output = created(log)?;
    let errors = output.try_clone().context("duplicate a descriptor")?;
    let mut command = of(&server.command)?;
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(output).stderr(errors))?;
    until(&format!("somebody to listen at {}", server.at), || {
        if let Some(status) = process.child().try_wait().context("look at a server")? {
            let said = fs::read_to_string(log).unwrap_or_default();
            bail!("a server has ended ({status}): {}", said.trim_end());
        }
        Ok(server.at.is_open())
    })?;
    Ok(process)
}

/// Ends the program whose process id is in a file, which it removes last.
fn end_gently(pid_file: &Path) -> Result<()> {
    // It has ended.
    let Ok(content) = fs::read_to_string(pid_file) else { return Ok(()) };
    let pid = content.lines().next().and_then(|pid| pid.trim().parse().ok());
    let pid = pid.with_context(|| format!("find a process id in {}", pid_file.display()))?;
    kill(Pid::from_raw(pid), Signal::SIGQUIT).with_context(|| format!("signal process {pid}"))?;
    until(&format!("process {pid} to end"), || Ok(!pid_file.exists()))
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("waited in vain for {what}");
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

fn of(words: &[String]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("a command")?;
    let mut command = Command::new(program);
    // Some of them go to where they were started, which has to be open to them.
    command.args(arguments).current_dir("/");
    Ok(command)
}

fn created(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("create {}", path.display()))
}
