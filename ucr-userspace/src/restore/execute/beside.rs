//! Internet sockets that stand beside those which they are to replace, with the same addresses, until one of the two goes.
//!
//! The kernel gives an address to one socket only, with exceptions (docs/KERNEL.md, "Two sockets with one address"):
//!
//! - A connection is told from others by its interface as well. The old one is bound to an interface that there is not:
//!   nothing comes to it any more, and nothing that it says leaves the machine, not even its end.
//! - Ports of TCP are given to a socket in repair mode whoever has them. Two may listen there if both share it
//!   (`SO_REUSEPORT`); a program chooses the new one for whoever comes.
//! - Ports of UDP may be used again (`SO_REUSEADDR`): whoever was bound last gets what comes.
//!
//! What is done to the old ones is undone if the new ones do not take their places: by this process, or if that is
//! killed, by a guard, which also holds the lock of the connections until it is done.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::socket::SockaddrStorage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid, fchown, fstat};
use rustix::net;

use super::inet::{choose_member, saved_inet};
use super::{Restored, StepError, call};
use crate::image::{Image, Inet, Role, SocketIndex};
use crate::lock::Lock;
use crate::model::Pid;
use crate::model::inet::{Endpoint, Family, Protocol};
use crate::model::option_table::SO_BINDTOIFINDEX;
use crate::process::inet;
use crate::restore::plan::inet::InetStep;
use crate::restore::plan::step::{Holder, Step};
use crate::sys::guard::{self, Barrier, Setting, Undoing};
use crate::sys::repair::{self, Leave};
use crate::sys::sockopt::{self, SO_DETACH_REUSEPORT_BPF};

/// An interface that there is not. (The kernel gives them small numbers, one after the other.)
const NOWHERE: i32 = i32::MAX - 1;

/// Place of a new listener among those that share its port: behind the old one.
const SECOND: u32 = 1;

/// What is set of an old socket, and is set back: of a connection, and of others.
const CHANGED_OF_CONNECTION: [i32; 1] = [SO_BINDTOIFINDEX];
const CHANGED: [i32; 3] = [SO_BINDTOIFINDEX, libc::SO_REUSEPORT, libc::SO_REUSEADDR];

/// How many sockets a process makes at once.
const TOGETHER: usize = 64;

/// How many times an old socket is held: here, and by whoever sets it back.
pub const OWN_REFERENCES: u64 = 2;

/// A descriptor of a live process, by the pid that the image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Whose.
    pub pid: Pid,
    /// Which.
    pub fd: i32,
    /// The socket's address in the kernel.
    pub sk: u64,
}

/// An option as it is to be set.
#[derive(Debug)]
struct Back {
    socket: Arc<OwnedFd>,
    name: i32,
    value: Vec<u8>,
}

impl Back {
    fn setting(&self) -> Setting<'_> {
        let Self { socket, name, value } = self;
        let (level, value) = (libc::SOL_SOCKET, value.clone());
        Setting { socket: socket.as_fd(), level, name: *name, value }
    }
}

/// The old sockets.
#[derive(Debug, Default)]
pub(super) struct Beside {
    predecessors: BTreeMap<SocketIndex, Predecessor>,
    /// Made, and not asked for yet.
    made: HashMap<SocketIndex, OwnedFd>,
    old: HashMap<SocketIndex, Arc<OwnedFd>>,
    back: PutBack,
    is_guarded: bool,
    /// Whether the processes go on with the old ones for now.
    go_on: bool,
    /// `SO_LINGER` of new connections, which is something else as long as the old ones may come back.
    lingers: HashMap<SocketIndex, Vec<u8>>,
}

impl Beside {
    /// Beside these.
    pub(super) fn new(
        predecessors: Option<&BTreeMap<SocketIndex, Predecessor>>,
        go_on: bool,
    ) -> Self {
        let predecessors = predecessors.cloned().unwrap_or_default();
        Self { predecessors, go_on, ..Self::default() }
    }

    /// Whether a socket is to take the place of another one that has its address.
    pub(super) fn has(&self, index: SocketIndex) -> bool {
        self.predecessors.contains_key(&index)
    }

    fn old(&self, index: SocketIndex) -> Result<BorrowedFd<'_>, StepError> {
        let old = self.old.get(&index).ok_or(StepError::Missing(Holder::Saved(index)))?;
        Ok(old.as_fd())
    }

    /// Whether the processes go on with the old one for now.
    pub(super) fn go_on(&self) -> bool {
        self.go_on
    }

    /// The old ones are what they were.
    pub(super) fn put_back(&mut self) {
        self.back.now();
    }

    /// The new ones stay.
    pub(super) fn finish(&mut self) {
        self.back.options.clear();
        self.back.forgetting.clear();
        self.old.clear();
    }
}

/// Set when this is dropped, in this order: first the new ones go out of the way.
#[derive(Debug, Default)]
struct PutBack {
    options: Vec<Back>,
    /// For each listener one that has the kernel forget that its port was shared, and where.
    forgetting: Vec<(OwnedFd, core::net::SocketAddr)>,
}

impl PutBack {
    fn now(&mut self) {
        for Back { socket, name, value } in self.options.drain(..) {
            let set = sockopt::set(socket.as_fd(), name, &value);
            // There may be none yet.
            if let (Err(error), true) = (set, name != SO_DETACH_REUSEPORT_BPF) {
                tracing::error!(%error, option = name, "failed to set an option of a socket back");
            }
        }
        for (socket, address) in self.forgetting.drain(..) {
            if let Err(error) = net::bind(&socket, &address) {
                tracing::error!(%error, %address, "failed to have a port forget that it was shared");
            }
        }
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        self.now();
    }
}

/// What of this process holds a lock of connections: it lasts as long as somebody has these. Sockets are none.
fn holds_of_locks(sockets: &HashSet<RawFd>) -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| !sockets.contains(number)) else { continue };
        let link = fs::read_link(entry.path());
        if link.is_ok_and(|link| link.to_string_lossy().starts_with("anon_inode:bpf")) {
            found.push(number);
        }
    }
    Ok(found)
}

fn bytes(value: i32) -> [u8; 4] {
    value.to_ne_bytes()
}

/// An option that is something else while something is done.
fn with<T>(
    socket: BorrowedFd<'_>,
    options: &[(i32, i32)],
    run: impl FnOnce() -> Result<T, StepError>,
) -> Result<T, StepError> {
    let mut before = Vec::new();
    for (name, value) in options {
        before.push((*name, sockopt::get(socket, *name).map_err(call("getsockopt"))?));
        sockopt::set(socket, *name, &bytes(*value)).map_err(call("setsockopt"))?;
    }
    let done = run()?;
    for (name, value) in before {
        sockopt::set(socket, name, &value).map_err(call("setsockopt"))?;
    }
    Ok(done)
}

impl Restored {
    /// One that takes the place of another one: made by the process that has that one, to which the kernel counts it
    /// then (its control group), and with its owner. All that come next are made as well.
    pub(super) fn create_beside(
        &mut self,
        index: SocketIndex,
        steps: &[Step],
    ) -> Result<OwnedFd, StepError> {
        if !self.beside.made.contains_key(&index) {
            self.create_all(steps)?;
        }
        self.beside.made.remove(&index).ok_or(StepError::Missing(Holder::Saved(index)))
    }

    fn create_all(&mut self, steps: &[Step]) -> Result<(), StepError> {
        let mut wanted: BTreeMap<Pid, Vec<(SocketIndex, Family, Protocol)>> = BTreeMap::new();
        for step in steps {
            let Step::Inet { socket, step: InetStep::Create { family, protocol } } = step else {
                break;
            };
            let Some(predecessor) = self.beside.predecessors.get(socket) else { continue };
            if !self.adopted.contains_key(&Holder::Saved(*socket)) {
                wanted.entry(predecessor.pid).or_default().push((*socket, *family, *protocol));
            }
        }
        for (pid, all) in wanted {
            let mut owner = None;
            for some in all.chunks(TOGETHER) {
                let kinds: Vec<_> = some.iter().map(|(_, f, p)| (*f, *p)).collect();
                let new = self.workers.sockets(pid, &kinds).map_err(call("socket"))?;
                for ((index, ..), new) in some.iter().zip(new) {
                    self.know_old(*index, &new, &mut owner)?;
                    self.beside.made.insert(*index, new);
                }
            }
        }
        Ok(())
    }

    /// `owner` is that of all new ones of its process.
    fn know_old(
        &mut self,
        index: SocketIndex,
        new: &OwnedFd,
        owner: &mut Option<(u32, u32)>,
    ) -> Result<(), StepError> {
        let Some(Predecessor { pid, fd, .. }) = self.beside.predecessors.get(&index).copied()
        else {
            return Ok(());
        };
        let old = self.workers.duplicate(pid, fd).map_err(call("take the old socket"))?;
        let owner_of = |socket: BorrowedFd<'_>| {
            fstat(socket).map(|stat| (stat.st_uid, stat.st_gid)).map_err(call("fstat"))
        };
        let own = match *owner {
            Some(known) => known,
            None => *owner.insert(owner_of(new.as_fd())?),
        };
        let wanted = owner_of(old.as_fd())?;
        if own != wanted {
            let (uid, gid) = (Uid::from_raw(wanted.0), Gid::from_raw(wanted.1));
            fchown(new, Some(uid), Some(gid)).map_err(call("fchown"))?;
        }
        self.beside.old.insert(index, Arc::new(old));
        Ok(())
    }

    /// Makes room for a new socket at the address of the old one.
    pub(super) fn stand_aside(
        &mut self,
        image: &Image,
        index: SocketIndex,
        barrier: Option<&Barrier>,
    ) -> Result<(), StepError> {
        if !self.beside.is_guarded {
            self.watch(image, barrier)?;
        }
        let saved = saved_inet(image, index)?;
        let old = self.beside.old(index)?;
        let set = |name, value| sockopt::set(old, name, &bytes(value)).map_err(call("setsockopt"));
        match saved.protocol {
            Protocol::Tcp if saved.tcp.is_some() => set(SO_BINDTOIFINDEX, NOWHERE),
            Protocol::Tcp if is_listener(image, index) => set(libc::SO_REUSEPORT, 1),
            Protocol::Tcp => Ok(()),
            Protocol::Udp | Protocol::UdpLite => {
                set(libc::SO_REUSEADDR, 1)?;
                // What is sent to a group would come to both.
                if self.beside.go_on { Ok(()) } else { set(SO_BINDTOIFINDEX, NOWHERE) }
            }
        }
    }

    /// Writes down how all that are replaced are set back, and starts who does it if this process is killed. All new
    /// ones are there by now.
    fn watch(&mut self, image: &Image, barrier: Option<&Barrier>) -> Result<(), StepError> {
        let mut back = PutBack::default();
        let mut olds: Vec<_> = self.beside.old.iter().collect();
        olds.sort_by_key(|(index, _)| **index);
        for (index, _) in &olds {
            let new = Holder::Saved(**index);
            let socket = self.sockets.get(&new).ok_or(StepError::Missing(new))?;
            let socket = Arc::clone(socket);
            let (name, value) = (SO_BINDTOIFINDEX, bytes(NOWHERE).to_vec());
            back.options.push(Back { socket, name, value });
        }
        for (index, old) in olds {
            let is_connection = saved_inet(image, *index)?.tcp.is_some();
            let changed: &[i32] = if is_connection { &CHANGED_OF_CONNECTION } else { &CHANGED };
            for name in changed.iter().copied() {
                let value = sockopt::get(old.as_fd(), name).map_err(call("getsockopt"))?;
                back.options.push(Back { socket: Arc::clone(old), name, value });
            }
            if is_listener(image, *index) {
                // Behind SO_REUSEPORT, without which nobody asks it any more.
                let (name, value) = (SO_DETACH_REUSEPORT_BPF, bytes(0).to_vec());
                back.options.push(Back { socket: Arc::clone(old), name, value });
                let saved = saved_inet(image, *index)?;
                let local = saved.local.ok_or(StepError::Missing(Holder::Saved(*index)))?;
                back.forgetting.push((forgetter(old.as_fd(), saved)?, local.into()));
            }
        }
        self.beside.back = back;
        self.beside.is_guarded = true;
        let Some(barrier) = barrier else { return Ok(()) };
        let PutBack { options, forgetting } = &self.beside.back;
        let settings = options.iter().map(Back::setting).collect();
        let binds =
            forgetting.iter().map(|(s, at)| (s.as_fd(), SockaddrStorage::from(*at))).collect();
        let sockets = self.sockets.values().chain(self.beside.old.values());
        let sockets = sockets.map(AsRawFd::as_raw_fd).collect();
        let held = holds_of_locks(&sockets).map_err(call("list own descriptors"))?;
        let undoing = Undoing { settings, binds, held, ..Undoing::default() };
        guard::start(&undoing, barrier).map_err(call("start who sets sockets back"))
    }

    /// Binds it where the old one is bound.
    pub(super) fn bind_beside(
        &self,
        image: &Image,
        index: SocketIndex,
        local: Endpoint,
    ) -> Result<(), StepError> {
        let saved = saved_inet(image, index)?;
        let socket = self.saved(index)?;
        let address = core::net::SocketAddr::from(local);
        let bind = || net::bind(socket, &address).map_err(call("bind"));
        match saved.protocol {
            Protocol::Tcp if saved.tcp.is_some() => bind(),
            // The kernel notes that the port is shared by this one, and asks nobody when it listens, not even the
            // connections of the old one (`sk_reuseport_match`).
            Protocol::Tcp if is_listener(image, index) => {
                with(socket, &[(libc::SO_REUSEPORT, 1)], || in_repair(socket, bind))
            }
            Protocol::Tcp => in_repair(socket, bind),
            // As the last one that was bound, and in no group.
            Protocol::Udp | Protocol::UdpLite => {
                with(socket, &[(libc::SO_REUSEADDR, 1), (libc::SO_REUSEPORT, 0)], bind)
            }
        }
    }

    /// Listens where the old one listens; whoever comes from now on comes to the new one.
    pub(super) fn listen_beside(
        &self,
        index: SocketIndex,
        saved: &Inet,
        backlog: i32,
    ) -> Result<(), StepError> {
        let socket = self.saved(index)?;
        with(socket, &[(libc::SO_REUSEPORT, 1)], || {
            net::listen(socket, backlog).map_err(call("listen"))?;
            choose_member(socket, SECOND)
        })?;
        let local = saved.local.ok_or(StepError::Missing(Holder::Saved(index)))?;
        let forgetter = forgetter(self.beside.old(index)?, saved)?;
        net::bind(&forgetter, &core::net::SocketAddr::from(local)).map_err(call("bind"))
    }

    /// Nothing comes to old sockets any more.
    pub(in crate::restore) fn hide_old(&self) -> io::Result<()> {
        let old = self.beside.old.values();
        old.into_iter()
            .try_for_each(|old| sockopt::set(old.as_fd(), SO_BINDTOIFINDEX, &bytes(NOWHERE)))
    }

    /// Whether something waits at an old socket, for its program to take it.
    pub(in crate::restore) fn is_old_awaited(&self) -> io::Result<bool> {
        let old = self.beside.old.values();
        let mut waited: Vec<_> = old.map(|old| PollFd::new(&**old, PollFlags::IN)).collect();
        Ok(poll(&mut waited, Some(&Timespec::default()))? > 0)
    }

    /// Whether connections may have got something by now.
    pub(in crate::restore) fn has_lock_ended(&self) -> bool {
        self.lock.as_ref().is_some_and(Lock::has_ended)
    }

    /// The new connections are what the program had.
    ///
    /// # Errors
    /// The kernel's.
    pub fn settle(&mut self) -> Result<(), StepError> {
        for (index, _) in &self.connections {
            let socket = self.saved(*index)?;
            let reuse = sockopt::get(socket, libc::SO_REUSEADDR).map_err(call("getsockopt"))?;
            repair::leave(socket, Leave::Silently).map_err(call("setsockopt TCP_REPAIR"))?;
            // Whoever leaves repair mode has none.
            if reuse.iter().any(|byte| *byte != 0) {
                sockopt::set(socket, libc::SO_REUSEADDR, &reuse).map_err(call("setsockopt"))?;
            }
        }
        Ok(())
    }

    /// Has a new connection closed without a word, in repair mode or not, as long as the old one may come back.
    pub(super) fn abort_if_closed(&mut self, index: SocketIndex) -> Result<(), StepError> {
        let socket = self.saved(index)?;
        let linger = sockopt::get(socket, libc::SO_LINGER).map_err(call("getsockopt"))?;
        sockopt::set(socket, libc::SO_LINGER, &ABORT).map_err(call("setsockopt SO_LINGER"))?;
        self.beside.lingers.insert(index, linger);
        Ok(())
    }

    /// What `SO_LINGER` of a connection is to be set to in the end.
    #[must_use]
    pub fn linger(&self, index: SocketIndex) -> Option<&[u8]> {
        self.beside.lingers.get(&index).map(Vec::as_slice)
    }
}

/// Whether it is a listener of TCP.
pub(in crate::restore) fn is_listener(image: &Image, socket: SocketIndex) -> bool {
    let saved = image.sockets.get(socket.get());
    saved.is_some_and(|s| s.inet.is_some() && matches!(s.role, Role::Listening { .. }))
}

/// `struct linger`, on and 0 seconds: a connection is not closed but forgotten.
pub(in crate::restore) const ABORT: [u8; 8] = {
    let [a, b, c, d] = 1_i32.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0]
};

/// One that is to be bound where this listener is. The kernel remembers of a port that it was shared, until somebody is
/// bound there who does not share it.
fn forgetter(listener: BorrowedFd<'_>, saved: &Inet) -> Result<OwnedFd, StepError> {
    let made = inet::create(saved.family, saved.protocol).map_err(call("socket"))?;
    let device = sockopt::get(listener, SO_BINDTOIFINDEX).map_err(call("getsockopt"))?;
    sockopt::set(made.as_fd(), SO_BINDTOIFINDEX, &device).map_err(call("setsockopt"))?;
    // It may be an address that is not of this machine, and one of IPv4 besides.
    let mut all = vec![(libc::SOL_IP, libc::IP_FREEBIND, bytes(1).to_vec())];
    if saved.family == Family::V6 {
        let (level, name) = (libc::SOL_IPV6, libc::IPV6_V6ONLY);
        let only = sockopt::get_at(listener, level, name, 4).map_err(call("getsockopt"))?;
        all.extend([(level, name, only), (level, libc::IPV6_FREEBIND, bytes(1).to_vec())]);
    }
    for (level, name, value) in all {
        sockopt::set_at(made.as_fd(), level, name, &value).map_err(call("setsockopt"))?;
    }
    repair::enter(made.as_fd()).map_err(call("setsockopt TCP_REPAIR"))?;
    Ok(made)
}

/// What is done in repair mode, which no other socket keeps from a port.
fn in_repair(
    socket: BorrowedFd<'_>,
    run: impl FnOnce() -> Result<(), StepError>,
) -> Result<(), StepError> {
    let reuse = sockopt::get(socket, libc::SO_REUSEADDR).map_err(call("getsockopt"))?;
    repair::enter(socket).map_err(call("setsockopt TCP_REPAIR"))?;
    run()?;
    repair::leave(socket, Leave::Silently).map_err(call("setsockopt TCP_REPAIR"))?;
    sockopt::set(socket, libc::SO_REUSEADDR, &reuse).map_err(call("setsockopt SO_REUSEADDR"))
}
