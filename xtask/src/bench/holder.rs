//! One process with so many sockets of one kind, which is dumped and restored, or whose sockets are replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::stage::{Stage, until};
use crate::leftovers::Process;

/// How the sockets come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As socketpairs.
    Pairs,
    /// By connecting to a listener of the same process, which accepts them.
    Accepted,
    /// The same over TCP, on 127.0.0.1.
    Tcp,
}

/// So many sockets of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) shape: Shape,
    /// Without the listener.
    pub(super) sockets: u32,
    /// What waits at each of them.
    pub(super) bytes: u32,
}

/// What somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) sockets: u32,
    pub(super) bytes: u32,
}

/// Who may end before the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It ends with us.
    Bound,
    /// It does not: whoever brings it back is not going to stay. Only for machines that end as a whole.
    Free,
}

impl Set {
    /// A process without sockets: what a tool needs for it is its start-up.
    pub(super) const BARE: Self = Self { shape: Shape::Pairs, sockets: 0, bytes: 0 };

    /// What a figure of it is called.
    pub(super) fn figure(&self, what: &str) -> String {
        format!("{} {}: {what}", self.sockets, self.name())
    }

    /// Both unix shapes, without data and with 1 KiB.
    pub(super) fn kinds(sockets: u32) -> [Self; 4] {
        let of = |shape, bytes| Self { shape, sockets, bytes };
        [
            of(Shape::Pairs, 0),
            of(Shape::Pairs, 1024),
            of(Shape::Accepted, 0),
            of(Shape::Accepted, 1024),
        ]
    }

    /// In words, without the number.
    pub(super) fn name(&self) -> String {
        let data = match self.bytes {
            0 => "empty".to_owned(),
            bytes => format!("{bytes} bytes each"),
        };
        format!("{}, {data}", self.shape())
    }

    /// As the program that makes them calls it.
    pub(super) fn shape(&self) -> &'static str {
        match self.shape {
            Shape::Pairs => "pairs",
            Shape::Accepted => "accepted",
            Shape::Tcp => "tcp",
        }
    }

    /// What the program that makes them has to be told.
    pub(super) fn words(&self, folder: &Path) -> [String; 4] {
        let folder = folder.display().to_string();
        [self.shape().to_owned(), self.sockets.to_string(), self.bytes.to_string(), folder]
    }

    /// What there has to be.
    pub(super) fn count(&self) -> Count {
        let listeners = u32::from(self.shape != Shape::Pairs);
        Count { sockets: self.sockets + listeners, bytes: self.sockets * self.bytes }
    }
}

impl Count {
    /// As the program tells it.
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(sockets)), Some(Ok(bytes)), None) => Ok(Self { sockets, bytes }),
            _ => anyhow::bail!("`{}` is no number of sockets and of bytes", text.trim()),
        }
    }
}

/// A process that holds them. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Holder {
    process: Process,
    pub(super) pid: u32,
    pub(super) folder: PathBuf,
}

impl Holder {
    /// Starts one and waits until it has them all.
    pub(super) fn start(stage: &Stage, set: &Set, life: Life) -> Result<Self> {
        let folder = stage.new_folder("holder")?;
        let verb = match life {
            Life::Bound => "keep",
            Life::Free => "outlive",
        };
        let mut command = Command::new(stage.victim());
        command.args(["hold", verb]).args(set.words(&folder));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(&mut command)?;
        let ready = folder.join("ready");
        until("a victim to have its sockets", || {
            let ended = process.child().try_wait().context("wait for a victim")?;
            ensure!(ended.is_none(), "a victim with {} sockets has ended", set.sockets);
            Ok(ready.exists().then_some(()))
        })?;
        let pid = process.child().id();
        let holder = Self { process, pid, folder };
        ensure!(told(&ready)? == set.count(), "a victim has not what it was to make");
        Ok(holder)
    }

    /// Lets it look what it has: whoever answers goes on.
    pub(super) fn ask(&self) -> Result<Count> {
        ask(self.pid, &self.folder)
    }

    /// Waits for its end, so that its number is free.
    pub(super) fn reap(&mut self) -> Result<()> {
        self.process.wait().map(drop)
    }

    /// Ends it; what is left of it is its folder, without the listener.
    pub(super) fn end(mut self) -> Result<PathBuf> {
        self.process.kill();
        self.process.wait()?;
        remove_listener(&self.folder)?;
        Ok(self.folder.clone())
    }
}

/// Removes the file of the listener of a folder, if there is one: what was bound stays behind, whoever has bound it.
pub(super) fn remove_listener(folder: &Path) -> Result<()> {
    let listener = folder.join("listener.sock");
    match fs::remove_file(&listener) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", listener.display()))
        }
        _ => Ok(()),
    }
}

/// Lets a process that holds sockets, and whose folder this is, look what it has.
pub(super) fn ask(pid: u32, folder: &Path) -> Result<Count> {
    let answer = folder.join("told");
    if answer.exists() {
        fs::remove_file(&answer).context("remove an old answer")?;
    }
    let pid = Pid::from_raw(i32::try_from(pid).context("a process id")?);
    until("a victim to tell what it has", || {
        kill(pid, Signal::SIGUSR1).context("ask a victim")?;
        Ok(answer.exists().then_some(()))
    })?;
    told(&answer)
}

fn told(path: &Path) -> Result<Count> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Count::read(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_one_more() {
        let [pairs, .., accepted] = Set::kinds(2000);
        assert_eq!(pairs.count(), Count { sockets: 2000, bytes: 0 });
        assert_eq!(accepted.count(), Count { sockets: 2001, bytes: 2_048_000 });
        assert_eq!(accepted.name(), "accepted, 1024 bytes each");
        let tcp = Set { shape: Shape::Tcp, ..pairs };
        assert_eq!(tcp.count(), Count { sockets: 2001, bytes: 0 });
    }

    #[test]
    fn what_is_told_is_understood_or_named() {
        assert_eq!(Count::read("3 1024\n").expect("both"), Count { sockets: 3, bytes: 1024 });
        for wrong in ["", "3", "3 x", "3 4 5"] {
            let error = Count::read(wrong).expect_err("no count");
            assert!(error.to_string().starts_with(&format!("`{wrong}`")), "{error}");
        }
    }
}
