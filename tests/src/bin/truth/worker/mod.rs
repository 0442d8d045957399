//! A worker: does one hostile thing after another with unix sockets, until it is killed.
//!
//! What it has of sockets is in its bag: nobody knows in which state they are, since others have
//! them too. The bag is bounded, so the number of sockets is.

mod calls;
mod crowd;
mod datagrams;
mod descriptors;
mod doors;
mod internet;
mod names;
mod namespaces;
mod processes;
mod races;
mod rights;
mod streams;
mod task;

use std::{
    env, fs, io,
    os::fd::{OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nix::sys::stat::{FileStat, SFlag, fstat};
use ucr::sys::descriptor::{close_number, duplicate_of};

use crate::tally::Counter;
use calls::Calls;
pub(crate) use names::Names;
pub(crate) use task::Task;

/// Most descriptors in a bag.
const BAG: usize = 160;

/// What a worker has.
struct Worker {
    task: Task,
    calls: Calls,
    names: Names,
    /// Sockets in whatever state, and whoever else has them.
    bag: Vec<OwnedFd>,
    /// Internet sockets.
    internet: Vec<OwnedFd>,
    /// The foreman's listeners.
    common: Vec<OwnedFd>,
    /// Where the others send descriptors.
    mailbox: Option<OwnedFd>,
}

type Act = fn(&mut Worker) -> Option<()>;

/// What can be done and how often, in parts of the sum; and the module that it is in.
const ACTS: &[(u32, &str, Act)] = &[
    (40, "streams", streams::listener),
    (60, "streams", streams::client),
    (80, "streams", streams::accept),
    (40, "streams", streams::conversation),
    (20, "streams", streams::dying_listener),
    (20, "streams", streams::vanishing_clients),
    (10, "streams", streams::to_itself),
    (20, "streams", streams::late_name),
    (30, "streams", streams::again),
    (40, "streams", streams::shut_down),
    (60, "streams", streams::talk),
    (40, "streams", streams::pair),
    (20, "streams", streams::rebind),
    (20, "datagrams", datagrams::receiver),
    (30, "datagrams", datagrams::mutual),
    (10, "datagrams", datagrams::to_itself),
    (20, "datagrams", datagrams::orphan),
    (20, "datagrams", datagrams::faithless),
    (40, "datagrams", datagrams::reconnect),
    (20, "datagrams", datagrams::credentials),
    (30, "rights", rights::pass),
    (30, "rights", rights::mail),
    (50, "rights", rights::receive),
    (10, "rights", rights::circle),
    (6, "rights", rights::circle_by_embryo),
    (20, "rights", rights::only_in_flight),
    (30, "descriptors", descriptors::duplicate),
    (20, "descriptors", descriptors::replace),
    (20, "descriptors", descriptors::close_on_exec),
    (4, "descriptors", descriptors::other_table),
    (60, "descriptors", descriptors::drop_some),
    (4, "crowd", crowd::threads),
    (40, "races", races::any),
    (4, "doors", doors::listener_dies),
    (4, "doors", doors::signal),
    (4, "doors", doors::opens),
    (1, "namespaces", namespaces::visit),
    (20, "internet", internet::listener),
    (40, "internet", internet::client),
    (40, "internet", internet::accept),
    (30, "internet", internet::disturb),
    (20, "internet", internet::close),
    (30, "internet", internet::datagrams),
];

/// What is done once in so many acts: a new process costs as much as a thousand system calls, and a
/// network namespace more than that.
const SELDOM: &[(u32, Act)] = &[
    (1500, processes::child),
    (5000, processes::executes),
    (5000, processes::ends),
    (4000, namespaces::fresh),
];

/// Whether a module has something to choose.
pub(crate) fn has_acts(module: &str) -> bool {
    ACTS.iter().any(|(_, name, _)| *name == module)
}

/// Works until the end, which is most often a SIGKILL.
pub(crate) fn run(task: Task) -> Result<()> {
    env::set_current_dir(&task.folder).context("enter the run's folder")?;
    if task.foreign {
        namespaces::leave(&task).context("unshare the network namespace")?;
    }
    doors::take_signals()?;
    let names = Names::new(&task.folder);
    let mut calls = Calls { rng: Rng::with_seed(task.seed), counter: Counter::new() };
    let common = common(&task.common)?;
    let mailbox = if task.acts.is_none() { mailbox(&mut calls, &names, &task) } else { None };
    let bag = inherited(&task.common)?;
    let internet = Vec::new();
    let mut worker = Worker { task, calls, names, bag, internet, common, mailbox };
    worker.calls.rng.shuffle(&mut worker.bag);
    worker.work();
    // Not by dropping: the kernel closes what a process leaves behind.
    worker.calls.counter.report();
    std::process::exit(0)
}

/// The foreman's listeners. Their own numbers stay open: they are for programs executed later.
fn common(numbers: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    numbers
        .iter()
        .filter_map(|number| duplicate_of(*number).transpose())
        .map(|found| Ok(found?.0))
        .collect()
}

fn mailbox(calls: &mut Calls, names: &Names, task: &Task) -> Option<OwnedFd> {
    let name = names.mailbox(task.number);
    let path = task.folder.join(format!("mail-{}", task.number));
    calls.unlink(&path);
    let fd = calls.socket(rustix::net::SocketType::DGRAM)?;
    calls.bind(&fd, &name)?;
    Some(fd)
}

/// Sockets that this process was started with, by the numbers that `/proc` lists: taken over.
fn inherited(common: &[RawFd]) -> io::Result<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    let numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2 && !common.contains(number))
        .collect();
    for number in numbers {
        let Some((fd, then)) = duplicate_of(number)? else { continue };
        // What is closed on exec is of this program: none of our business.
        if then == ucr::sys::descriptor::OnExec::Close || !is_socket(&fd) {
            continue;
        }
        close_number(number);
        if taken.len() < BAG / 2 {
            taken.push(fd);
        }
    }
    Ok(taken)
}

fn is_socket(fd: &OwnedFd) -> bool {
    let kind = |stat: FileStat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    fstat(fd).is_ok_and(|stat| kind(stat) == SFlag::S_IFSOCK)
}

impl Worker {
    fn work(&mut self) {
        let only = &self.task.only;
        let is_chosen = |module: &str| only.is_empty() || only.iter().any(|name| name == module);
        let acts: Vec<(u32, Act)> = ACTS
            .iter()
            .filter(|(_, module, _)| is_chosen(module))
            .map(|(weight, _, act)| (*weight, *act))
            .collect();
        let mut left = self.task.acts;
        while left != Some(0) {
            left = left.map(|acts| acts - 1);
            self.act(&acts);
            while self.bag.len() > BAG {
                self.drop_one();
            }
        }
    }

    fn act(&mut self, acts: &[(u32, Act)]) {
        for (one_in, act) in SELDOM {
            if self.calls.rng.u32(0..*one_in) == 0 {
                let _done = act(self);
            }
        }
        let sum: u32 = acts.iter().map(|(weight, _)| weight).sum();
        let mut chance = self.calls.rng.u32(0..sum.max(1));
        let chosen = acts.iter().find(|(weight, _)| match chance.checked_sub(*weight) {
            Some(rest) => {
                chance = rest;
                false
            }
            None => true,
        });
        if let Some((_, act)) = chosen {
            // Nothing: a call on the way failed, as is usual here.
            let _done = act(self);
        }
    }

    /// A process that another one started, for a while.
    fn is_child(&self) -> bool {
        self.task.acts.is_some()
    }

    fn any_place(&mut self) -> Option<usize> {
        let len = self.bag.len();
        (len > 0).then(|| self.calls.rng.usize(0..len))
    }

    fn keep(&mut self, fd: OwnedFd) {
        self.bag.push(fd);
    }

    /// Keeps it or not.
    fn keep_perhaps(&mut self, fd: OwnedFd) {
        if self.calls.rng.u8(0..4) > 0 {
            self.keep(fd);
        } else {
            self.close(fd);
        }
    }

    fn close(&mut self, fd: OwnedFd) {
        self.calls.counter.add(1);
        drop(fd);
    }

    fn drop_one(&mut self) {
        if let Some(place) = self.any_place() {
            let fd = self.bag.swap_remove(place);
            self.close(fd);
        }
    }

    fn shared_name(&mut self) -> Vec<u8> {
        self.names.shared(&mut self.calls.rng)
    }

    /// A name to connect to: one that is fought over, or of a listener that all have.
    fn some_listener(&mut self) -> Vec<u8> {
        let common = self.task.common.len();
        if common > 0 && self.calls.rng.u8(0..3) == 0 {
            self.names.common(self.calls.rng.usize(0..common))
        } else {
            self.shared_name()
        }
    }
}

/// The file by which a worker in a network namespace of its own is found.
fn foreign_file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("foreign-{number}"))
}
