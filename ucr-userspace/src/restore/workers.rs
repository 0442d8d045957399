//! Calls made by a process with the saved pid, where the kernel lets us have one; else by this one.
//!
//! The pid in `SO_PEERCRED` is that of whoever made the call, as it was then: it goes on being shown when
//! that process has ended. So each pid needs a process only for as long as its calls take. A worker is
//! kept for the next call under the same pid, and the least recently used one ends when there are too
//! many. All have ended before anything is verified.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rustix::net::{self, AddressFamily, SocketFlags};

use super::identity::{Assumed, Own, same_groups};
use super::inside::Inside;
use super::plan::step::{Holder, Identity};
use crate::model::Pid;
use crate::model::inet::{Family, Protocol};
use crate::model::name::Escaped;
use crate::process::{inet, procfs};
use crate::sys::addr;
use crate::sys::worker::{Call, Ends, Ids, Worker};

/// Alive at one time, at most, but for those that are held.
const MOST: usize = 64;

/// Why a process with a certain pid cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Somebody has it; with the command's name, if it could be read.
    Taken(Option<Vec<u8>>),
    /// We may not choose pids.
    NotPermitted,
    /// It lies beyond what this pid namespace gives out.
    TooHigh,
    /// The kernel cannot give a chosen pid (before 5.5), or has no room for processes.
    Refused(i32),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(None) => f.write_str("taken by a live process"),
            Self::Taken(Some(comm)) => write!(f, "taken by a live process ({})", Escaped(comm)),
            Self::NotPermitted => {
                f.write_str("not permitted: choosing a pid takes CAP_CHECKPOINT_RESTORE")
            }
            Self::TooHigh => f.write_str("beyond kernel.pid_max here"),
            Self::Refused(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
        }
    }
}

/// That a process with some pid exists.
#[derive(Clone, Debug)]
pub struct Held(#[expect(dead_code, reason = "to be had is all that it is for")] Option<Arc<()>>);

/// Who made a call, and what it made.
#[derive(Debug)]
pub struct Made {
    /// The pid that the call is known by.
    pub by: Pid,
    /// Of `socketpair`, as many as were asked for.
    pub ends: Vec<Ends>,
}

#[derive(Debug)]
struct Kept {
    pid: Pid,
    worker: Worker,
    holds: Arc<()>,
}

/// The processes that make calls. All end when this is dropped.
#[derive(Debug, Default)]
pub struct Workers {
    /// The most recently used one last.
    alive: Vec<Kept>,
    unavailable: BTreeMap<Pid, Unavailable>,
    /// Live processes that make calls themselves, by the pid that was saved.
    inside: BTreeMap<Pid, Inside>,
    /// Whose connections wait at each listener, in order.
    connected: BTreeMap<Holder, VecDeque<Pid>>,
    own: Own,
}

/// Ours. Asked for once: a worker, which has another one, runs nothing of this.
fn own_pid() -> Pid {
    static OWN: OnceLock<Pid> = OnceLock::new();
    *OWN.get_or_init(|| Pid(std::process::id().cast_signed()))
}

impl Workers {
    /// Those that have these among them, by the pids that were saved.
    #[must_use]
    pub fn with(inside: BTreeMap<Pid, Inside>) -> Self {
        Self { inside, ..Self::default() }
    }

    /// Gives the live processes back.
    pub fn take_inside(&mut self) -> BTreeMap<Pid, Inside> {
        std::mem::take(&mut self.inside)
    }

    /// Makes a call as somebody.
    ///
    /// # Errors
    ///
    /// What the kernel refuses: the ids, or the call.
    pub fn make(&mut self, identity: Option<&Identity>, call: Call<'_>) -> io::Result<Made> {
        if let Some(wanted) = identity
            && let Some(inside) = self.inside.get_mut(&wanted.pid)
            && inside.is(wanted)
            && let Some(ends) = inside.make(call)?
        {
            return Ok(Made { by: inside.pid(), ends });
        }
        let is_wanted = |wanted: &&Identity| wanted.pid.0 > 0 && wanted.pid != own_pid();
        if let Some(wanted) = identity.filter(is_wanted)
            && self.get(wanted.pid).is_ok()
            && let Some(kept) = self.alive.last_mut()
        {
            let own = self.own.groups()?;
            let groups = wanted.groups.as_deref().filter(|groups| !same_groups(groups, own));
            let ids = Ids { uid: wanted.uid, gid: wanted.gid, groups };
            return Ok(Made { by: wanted.pid, ends: kept.worker.make(ids, call)? });
        }
        let assumed = Assumed::enter(identity, &mut self.own)?;
        let ends = in_place(call);
        assumed.leave()?;
        Ok(Made { by: own_pid(), ends: ends? })
    }

    /// Internet sockets that are made by a live process, if it is where we are; else by us.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub(super) fn sockets(
        &mut self,
        pid: Pid,
        kinds: &[(Family, Protocol)],
    ) -> io::Result<Vec<OwnedFd>> {
        match self.inside.get_mut(&pid) {
            Some(inside) if inside.is_in_our_network() => inside.sockets(kinds),
            _ => kinds.iter().map(|(family, protocol)| inet::create(*family, *protocol)).collect(),
        }
    }

    /// A duplicate of a descriptor of a live process.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn duplicate(&self, pid: Pid, fd: i32) -> io::Result<OwnedFd> {
        let inside = self.inside.get(&pid).ok_or(io::ErrorKind::NotFound)?;
        inside.duplicate(fd)
    }

    /// Sees to it that a process with this pid exists, until what is returned is dropped, or these are.
    ///
    /// # Errors
    ///
    /// Why it cannot be had. That somebody else has it is none here.
    pub fn hold(&mut self, pid: Pid) -> Result<Held, Unavailable> {
        if pid == own_pid() {
            return Ok(Held(None));
        }
        match self.get(pid) {
            Ok(()) => Ok(Held(self.alive.last().map(|kept| Arc::clone(&kept.holds)))),
            Err(Unavailable::Taken(_)) => Ok(Held(None)),
            Err(other) => Err(other),
        }
    }

    /// Notes who has connected to a listener.
    pub(super) fn connected(&mut self, listener: Holder, by: Pid) {
        self.connected.entry(listener).or_default().push_back(by);
    }

    /// Whose connection is the next one that the listener gives away; our own if nobody's was noted.
    pub(super) fn next(&mut self, listener: Holder) -> Pid {
        self.connected.get_mut(&listener).and_then(VecDeque::pop_front).unwrap_or_else(own_pid)
    }

    /// Pids that could not be had, so that calls show our own in place of them.
    #[must_use]
    pub fn unavailable(&self) -> &BTreeMap<Pid, Unavailable> {
        &self.unavailable
    }

    /// Ends all of them.
    pub fn end(&mut self) {
        self.alive.clear();
    }

    /// Makes the worker with this pid the last one of the list.
    fn get(&mut self, pid: Pid) -> Result<(), Unavailable> {
        if let Some(at) = self.alive.iter().rposition(|kept| kept.pid == pid) {
            // Most calls in a row are under one pid.
            let kept = self.alive.remove(at);
            self.alive.push(kept);
            return Ok(());
        }
        if let Some(known) = self.unavailable.get(&pid) {
            return Err(known.clone());
        }
        if self.alive.len() >= MOST
            && let Some(at) = self.alive.iter().position(|kept| Arc::strong_count(&kept.holds) == 1)
        {
            self.alive.remove(at);
        }
        match Worker::start(pid.0) {
            Ok(worker) => {
                self.alive.push(Kept { pid, worker, holds: Arc::default() });
                Ok(())
            }
            Err(error) => {
                let why = match error.raw_os_error() {
                    Some(libc::EEXIST) => Unavailable::Taken(procfs::comm(pid).ok()),
                    Some(libc::EPERM) => Unavailable::NotPermitted,
                    Some(libc::EINVAL) => Unavailable::TooHigh,
                    errno => Unavailable::Refused(errno.unwrap_or(libc::EIO)),
                };
                self.unavailable.insert(pid, why.clone());
                Err(why)
            }
        }
    }
}

/// The same call by this process.
fn in_place(call: Call<'_>) -> io::Result<Vec<Ends>> {
    match call {
        Call::Listen(socket, backlog) => net::listen(socket, backlog)?,
        Call::Connect(clients, name, _) => {
            clients.iter().try_for_each(|client| addr::connect(*client, name))?;
        }
        Call::Pairs(socket_type, count) => {
            let kind = net::SocketType::from_raw(socket_type.cast_unsigned());
            let pair = || net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
            return (0..count).map(|_| pair().map_err(io::Error::from)).collect();
        }
    }
    Ok(Vec::new())
}
