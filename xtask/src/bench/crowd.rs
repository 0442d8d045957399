//! Very many unix sockets in several processes: half of them socketpairs, half connections that named
//! listeners have accepted.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::stage::Stage;
use crate::leftovers::Process;

/// As many descriptors as one process may have of them: its limit is 20,000 in many places.
const PER_PROCESS: usize = 18_000;
/// As many connections as one listener has, so that there are listeners of all kinds of names.
const PER_LISTENER: usize = 1000;
/// Connections of a listener that has few.
const FEW: usize = 3;

/// One process of the crowd.
#[derive(Debug)]
struct Member {
    process: Process,
    lines: BufReader<ChildStdout>,
}

/// All of them. They end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    members: Vec<Member>,
    sockets: usize,
}

/// Something to be asked for.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) pid: u32,
    pub(super) fd: u32,
    pub(super) inode: u32,
}

impl Member {
    fn start(stage: &Stage, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(stage.victim());
        command.arg("crowd").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stdout = process.child().stdout.take().context("its output is a pipe")?;
        Ok(Self { process, lines: BufReader::new(stdout) })
    }

    /// Waits until it says something.
    fn says(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("read from a victim")?;
        match line.trim_end().strip_prefix(word) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => bail!("a victim did not say `{word}` but `{}`", line.trim_end()),
        }
    }
}

impl Crowd {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// How many sockets there are.
    pub(super) fn sockets(&self) -> usize {
        self.sockets
    }

    /// So many more as socketpairs.
    pub(super) fn pairs(&mut self, stage: &Stage, sockets: usize) -> Result<()> {
        let mut left = sockets / 2;
        while left > 0 {
            let pairs = left.min(PER_PROCESS / 2);
            let mut member = Member::start(stage, &["pairs", &pairs.to_string()])?;
            member.says("ready")?;
            self.members.push(member);
            self.sockets += 2 * pairs;
            left -= pairs;
        }
        Ok(())
    }

    /// So many more as connections: servers in one process, clients in another.
    pub(super) fn connections(&mut self, stage: &Stage, sockets: usize) -> Result<()> {
        let mut left = sockets / 2;
        while left > 0 {
            let connections = left.min(PER_PROCESS - PER_PROCESS / PER_LISTENER - 1);
            let listeners = connections.div_ceil(PER_LISTENER);
            self.connected(stage, listeners, connections)?;
            left -= connections;
        }
        Ok(())
    }

    /// A listener with few connections: its path.
    pub(super) fn few(&mut self, stage: &Stage) -> Result<PathBuf> {
        Ok(self.connected(stage, 1, FEW)?.join("0.sock"))
    }

    fn connected(
        &mut self,
        stage: &Stage,
        listeners: usize,
        connections: usize,
    ) -> Result<PathBuf> {
        let folder = stage.new_folder("crowd")?;
        let words = |verb: &str| {
            let folder = folder.display().to_string();
            [verb.to_owned(), folder, listeners.to_string(), connections.to_string()]
        };
        let start = |verb: &str| {
            let words = words(verb);
            Member::start(stage, &words.each_ref().map(String::as_str))
        };
        let mut server = start("serve")?;
        server.says("listening")?;
        let mut client = start("connect")?;
        client.says("ready")?;
        server.says("ready")?;
        self.members.extend([client, server]);
        self.sockets += listeners + 2 * connections;
        Ok(folder)
    }

    /// A socket of the process that was the last to be ready.
    pub(super) fn mark(&mut self) -> Result<Mark> {
        let last = self.members.last_mut().context("somebody in the crowd")?;
        mark_of(last.process.child().id())
    }
}

/// A socket of a process: the one with the highest number.
fn mark_of(pid: u32) -> Result<Mark> {
    let last = sockets_of(pid)?.pop_last();
    let (fd, inode) = last.with_context(|| format!("find a socket of process {pid}"))?;
    Ok(Mark { pid, fd, inode })
}

/// The sockets of a process: the inode at each descriptor.
pub(super) fn sockets_of(pid: u32) -> Result<BTreeMap<u32, u32>> {
    let folder = format!("/proc/{pid}/fd");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let path = entry.with_context(|| format!("list {folder}"))?.path();
        let Some(inode) = socket_behind(&path) else { continue };
        let fd = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let fd: u32 = fd.with_context(|| format!("understand {}", path.display()))?;
        found.insert(fd, inode);
    }
    Ok(found)
}

fn socket_behind(link: &Path) -> Option<u32> {
    let target = fs::read_link(link).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Loops of socketpair and close, in so many processes; waits for their end.
pub(super) fn busy(stage: &Stage, producers: u64, rate: Option<u64>, seconds: u64) -> Result<()> {
    let rate = rate.map_or(0, |rate| (rate / producers).max(1));
    let words = ["busy".to_owned(), rate.to_string(), seconds.to_string()];
    let start = || Member::start(stage, &words.each_ref().map(String::as_str));
    let members = (0..producers).map(|_| start()).collect::<Result<Vec<_>>>()?;
    for mut member in members {
        member.says("done")?;
    }
    Ok(())
}
