//! Executes a plan with real sockets in this process.

mod beside;
mod binding;
mod connections;
mod error;
mod exchange;
mod how;
mod inet;
mod tcp;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags};

pub(super) use self::beside::{ABORT, is_listener};
pub use self::beside::{OWN_REFERENCES, Predecessor};
pub use self::error::{Failed, RestoreError, StepError};
pub use self::how::{Execution, Places};

use self::beside::Beside;
use self::exchange::Exchange;
use super::arm;
use super::inside::Inside;
use super::plan::Plan;
use super::plan::step::{Holder, Step};
use super::private::PrivateRoot;
use super::reserve::{Reserved, Wanted};
use super::undo::{Undo, UndoProblem};
use super::workers::Workers;
use crate::image::{FileId, Image, SocketIndex, SocketOption};
use crate::kernel::clock;
use crate::kernel::interrupts::HeldBack;
use crate::lock::Lock;
use crate::model::inet::{Endpoint, Protocol};
use crate::model::{Pid, Shutdown, SocketType};
use crate::process::netlink;
use crate::process::{filter, options};
use crate::sys::addr;
use crate::sys::janitor::Doomed;
use crate::sys::worker::{Call, Ends, MOST_CALLS};

/// Sockets that were made. Dropping it undoes the restore.
#[derive(Debug)]
pub struct Restored {
    /// They share our descriptors: they end before those are closed.
    pub(super) workers: Workers,
    /// Messages whose credentials name this process, since nobody with the saved pid was to be had.
    pub(super) substituted: usize,
    sockets: HashMap<Holder, Arc<OwnedFd>>,
    /// Made for the steps that come next, all of which are for such pairs.
    pairs: VecDeque<Ends>,
    /// Connections that were made for the steps that come next, all of which are for such.
    ahead: usize,
    /// Made with `O_NONBLOCK`, which is taken from them when nothing is to be done with them any more:
    /// strangers who fill a queue, or take a connection out of it, give an error and do not hang us.
    hasty: HashSet<Holder>,
    /// Files that were made and stay.
    files: HashMap<Holder, FileId>,
    /// Files that are gone, of sockets that we may not ask for them.
    unreachable: HashMap<Holder, OwnedFd>,
    /// Where sockets are bound whose files are gone.
    private: Option<PrivateRoot>,
    undo: Undo,
    /// What waits to take the place of other files, or has taken it.
    exchange: Exchange,
    /// What is replaced and has its address, before the lock goes.
    beside: Beside,
    /// Made before, with their names.
    adopted: HashMap<Holder, OwnedFd>,
    /// Where sockets are put at once.
    homes: HashMap<SocketIndex, RawFd>,
    /// `SO_MARK` of what is put into queues: packets of others hardly have it.
    mark: u32,
    /// Ports that several sockets of the image share, once one of them has it.
    sharing: HashSet<(Protocol, Endpoint)>,
    /// What keeps the network from TCP connections.
    lock: Option<Lock>,
    /// TCP connections, all in repair mode: whether each had `SO_REUSEADDR`, which that forgets.
    connections: Vec<(SocketIndex, bool)>,
    reserved: Reserved,
    arming: Vec<Step>,
    finishing: Vec<Step>,
    /// The directory beneath which all paths of the image are looked up, if not ours.
    beneath: Option<Vec<u8>>,
}

fn call<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> StepError {
    move |error| StepError::Call { call, source: error.into() }
}

fn kind(socket_type: SocketType) -> net::SocketType {
    match socket_type {
        SocketType::Stream => net::SocketType::STREAM,
        SocketType::Dgram => net::SocketType::DGRAM,
        SocketType::Seqpacket => net::SocketType::SEQPACKET,
    }
}

/// How many steps are taken until somebody looks whether a signal has come.
const STEPS: usize = 64;

/// Executes a plan for this image.
///
/// # Errors
///
/// The first step that fails; everything before it is undone.
pub fn execute(plan: &Plan, image: &Image, how: Execution<'_>) -> Result<Restored, RestoreError> {
    execute_with(plan, image, how, Workers::default(), None)
}

/// The same, with processes that make calls, and with what keeps the network from its connections already.
///
/// # Errors
///
/// As [`execute`].
pub fn execute_with(
    plan: &Plan,
    image: &Image,
    how: Execution<'_>,
    workers: Workers,
    lock: Option<Lock>,
) -> Result<Restored, RestoreError> {
    let (wanted, homes) = match how.places {
        Places::Ours => (Wanted::by(image), homes(image)),
        Places::Others => (Wanted::beside(image), HashMap::new()),
    };
    let reserved = Reserved::new(&wanted)
        .map_err(|error| RestoreError { failed: Failed::Reserve(error), left: Vec::new() })?;
    let adopted = adopt(how.adopted)
        .map_err(|error| RestoreError { failed: Failed::Adopt(error), left: Vec::new() })?;
    let mut restored = Restored {
        workers,
        adopted,
        substituted: 0,
        sockets: HashMap::new(),
        pairs: VecDeque::new(),
        ahead: 0,
        hasty: HashSet::new(),
        files: HashMap::new(),
        unreachable: HashMap::new(),
        private: None,
        undo: Undo::default(),
        exchange: Exchange::guarded_by(how.barrier),
        beside: Beside::new(how.predecessors, how.go_on),
        homes,
        mark: mark(),
        sharing: HashSet::new(),
        lock,
        connections: Vec::new(),
        reserved,
        arming: plan.arming.clone(),
        finishing: plan.finishing.clone(),
        beneath: plan.beneath.clone(),
    };
    let last = "the end of the plan";
    for index in 0..=plan.steps.len() {
        let step = plan.steps.get(index);
        // No step waits for anybody, so that this is soon enough.
        let is_time = index.is_multiple_of(STEPS) || step.is_none();
        let signal = how.signals.filter(|_| is_time).and_then(HeldBack::came);
        let result = match (signal, step) {
            (Some(signal), _) => Err(StepError::Interrupted(signal)),
            _ if how.fail_before == Some(index) => Err(StepError::OnPurpose),
            (None, Some(step)) => {
                restored.take(step, plan.steps.get(index..).unwrap_or_default(), image)
            }
            (None, None) => restored.slow_down().and_then(|()| restored.wait_to_be_heeded(image)),
        };
        if let Err(source) = result {
            let step = step.map_or_else(|| last.to_owned(), ToString::to_string);
            let failed = Failed::Step { number: index + 1, step, source };
            return Err(RestoreError { failed, left: restored.undo() });
        }
    }
    // Nobody connects through them any more.
    restored.unreachable.clear();
    restored.workers.end();
    Ok(restored)
}

fn adopt(made: Option<&BTreeMap<SocketIndex, OwnedFd>>) -> io::Result<HashMap<Holder, OwnedFd>> {
    let made = made.into_iter().flatten();
    made.map(|(index, socket)| Ok((Holder::Saved(*index), socket.try_clone()?))).collect()
}

/// A number that others will hardly think of.
fn mark() -> u32 {
    let time = clock::boottime().to_le_bytes();
    crc32fast::hash(&[&time[..], &std::process::id().to_le_bytes()].concat()) | 1
}

/// How many of the first steps make pairs of one type as one and the same: whoever makes one makes them all in
/// one go.
fn alike(steps: &[Step]) -> usize {
    let who = |step: &Step| match step {
        Step::Pair { socket_type, identity, .. } => Some((*socket_type, identity.clone())),
        _ => None,
    };
    let first = steps.first().and_then(who);
    steps.iter().take(MOST_CALLS).take_while(|step| first.is_some() && who(step) == first).count()
}

/// The first number of each socket, if there is one process only: nobody else wants that number for
/// another socket.
fn homes(image: &Image) -> HashMap<SocketIndex, RawFd> {
    let mut homes = HashMap::new();
    if image.processes.len() == 1 {
        for descriptor in &image.descriptors {
            homes.entry(descriptor.socket).or_insert(descriptor.fd);
        }
    }
    homes
}

impl Restored {
    /// Keeps a new socket, at its number if it has one.
    pub(super) fn keep(&mut self, holder: Holder, socket: OwnedFd) -> Result<(), StepError> {
        let home = match holder {
            Holder::Saved(index) => self.homes.get(&index),
            Holder::Temporary(_) => None,
        };
        let socket = match home {
            Some(&number) => self.reserved.settle(socket, number).map_err(call("dup3"))?,
            None => socket,
        };
        self.sockets.insert(holder, Arc::new(socket));
        Ok(())
    }

    /// The descriptor of a socket of the image.
    #[must_use]
    pub fn socket(&self, index: SocketIndex) -> Option<BorrowedFd<'_>> {
        self.sockets.get(&Holder::Saved(index)).map(AsFd::as_fd)
    }

    /// Whether it was made before, so that something may have come to it by now.
    #[must_use]
    pub fn is_adopted(&self, index: SocketIndex) -> bool {
        self.adopted.contains_key(&Holder::Saved(index))
    }

    /// Whether what it is to replace is there as well, with the same address.
    #[must_use]
    pub fn is_beside(&self, index: SocketIndex) -> bool {
        self.beside.has(index)
    }

    /// The directory beneath which all paths of the image are looked up, if not ours.
    #[must_use]
    pub fn beneath(&self) -> Option<&[u8]> {
        self.beneath.as_deref()
    }

    /// How many messages carry our own pid in their credentials in place of the saved one.
    #[must_use]
    pub fn substituted(&self) -> usize {
        self.substituted
    }

    /// Numbers that are kept free, and the limit.
    #[must_use]
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// Who made the calls, as far as it was not this process; all have ended.
    #[must_use]
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// The live processes that made calls.
    pub fn take_inside(&mut self) -> BTreeMap<Pid, Inside> {
        self.workers.take_inside()
    }

    /// Takes everything back and says what could not be.
    #[must_use]
    pub fn undo(mut self) -> Vec<UndoProblem> {
        self.workers.end();
        self.hush();
        self.beside.put_back();
        // Closed first, so that nobody connects to a file that is about to go.
        self.sockets.clear();
        self.pairs.clear();
        let private = self.private.take().and_then(|private| {
            let path = private.path();
            let source = private.remove().err()?;
            Some(UndoProblem::Private { path, source })
        });
        let mut problems = self.undo.undo();
        problems.extend(private);
        problems.extend(self.exchange.clear());
        problems
    }

    /// Who is to be told by signals, as steps.
    #[must_use]
    pub fn arming(&self) -> &[Step] {
        &self.arming
    }

    /// What was moved aside and is to be deleted when nothing can fail any more.
    ///
    /// # Errors
    ///
    /// If a step is of another kind, or comes from another plan.
    pub fn doomed(&self) -> io::Result<Vec<Doomed<'_>>> {
        let finishing = self.finishing.iter();
        finishing
            .map(|step| match step {
                Step::Discard(aside) => self.undo.doomed(aside),
                _ => Err(io::ErrorKind::InvalidInput.into()),
            })
            .collect()
    }

    /// Deletes what was moved aside, for a caller who keeps the sockets. From here on those files
    /// are gone; the sockets can still be undone.
    ///
    /// # Errors
    ///
    /// The step that fails.
    pub fn discard_asides(&mut self) -> Result<(), Failed> {
        for (number, step) in (1..).zip(std::mem::take(&mut self.finishing)) {
            let done = match &step {
                Step::Discard(aside) => self.undo.discard(aside).map_err(call("unlink")),
                _ => Err(call("discard")(io::Error::from(io::ErrorKind::InvalidInput))),
            };
            done.map_err(|source| Failed::Step { number, step: step.to_string(), source })?;
        }
        Ok(())
    }

    /// What was made stays, also when this is dropped; the descriptors are closed then.
    pub fn make_final(&mut self) {
        self.undo.make_final();
        self.beside.finish();
    }

    pub(super) fn get(&self, holder: Holder) -> Result<BorrowedFd<'_>, StepError> {
        self.sockets.get(&holder).map(AsFd::as_fd).ok_or(StepError::Missing(holder))
    }

    pub(super) fn saved(&self, index: SocketIndex) -> Result<BorrowedFd<'_>, StepError> {
        self.get(Holder::Saved(index))
    }

    /// Takes a step, which is the first of these.
    fn take(&mut self, step: &Step, steps: &[Step], image: &Image) -> Result<(), StepError> {
        match step {
            Step::MoveAside(aside) => self.undo.move_aside(aside).map_err(call("rename")),
            Step::Discard(aside) => self.undo.discard(aside).map_err(call("unlink")),
            // All that has to do with its name is done.
            Step::Bind { made, .. }
            | Step::Attributes { made, .. }
            | Step::Exchange { made, .. }
                if self.adopted.contains_key(made) =>
            {
                Ok(())
            }
            Step::Create { made, .. } if self.adopted.contains_key(made) => {
                let socket = self.adopted.get(made).ok_or(StepError::Missing(*made))?;
                let socket = socket.try_clone().map_err(call("duplicate a descriptor"))?;
                self.keep(*made, socket)
            }
            Step::Create { made, socket_type } => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = net::socket_with(AddressFamily::UNIX, kind(*socket_type), flags, None)
                    .map_err(call("socket"))?;
                self.hasty.insert(*made);
                self.keep(*made, socket)
            }
            Step::Pair { a, b, socket_type, identity } => {
                if self.pairs.is_empty() {
                    let count = alike(steps).clamp(1, MOST_CALLS);
                    let pairs = Call::Pairs(kind(*socket_type).as_raw().cast_signed(), count);
                    let made = self.workers.make(identity.as_ref(), pairs);
                    self.pairs = made.map_err(call("socketpair"))?.ends.into();
                }
                let (one, other) = self.pairs.pop_front().ok_or(StepError::Missing(*a))?;
                self.keep(*a, one)?;
                self.keep(*b, other)
            }
            Step::Bind { made, place, landing } => self.bind(*made, place, landing),
            Step::Listen { made, backlog, identity } => {
                let socket = self.sockets.get(made).ok_or(StepError::Missing(*made))?;
                let listen =
                    Call::Listen(socket.as_fd(), (*backlog).try_into().unwrap_or(i32::MAX));
                self.workers.make(identity.as_ref(), listen).map(drop).map_err(call("listen"))
            }
            Step::Connect { listener, place, identity, .. } => {
                self.connect(*listener, place, identity.as_ref(), steps)
            }
            Step::ConnectDatagram { sender, receiver, place } => {
                self.connect_datagram(self.saved(*sender)?, *receiver, place)
            }
            Step::Inet { socket, step } => self.inet(image, *socket, step, steps),
            Step::Netlink { socket, netlink } => {
                let made = netlink::make(netlink);
                let made = made.map_err(|(call, source)| StepError::Call { call, source })?;
                self.keep(Holder::Saved(*socket), made)
            }
            Step::Disconnect { socket } => {
                net::connect_unspec(self.saved(*socket)?).map_err(call("connect to nobody"))
            }
            Step::Reconnect { socket, place } => {
                let socket = self.saved(*socket)?;
                let (name, _file) = self.way_outside(place)?;
                addr::connect(socket, &name).map_err(call("connect"))
            }
            Step::Keep { socket, pid, fd } => self.take_over(image, *socket, *pid, *fd),
            Step::Send { from, to, first, count, place } => {
                self.deliver(image, *from, *to, *first..*first + *count, place.as_ref())
            }
            Step::Spoil { socket } => {
                let flags = net::SendFlags::NOSIGNAL | net::SendFlags::DONTWAIT;
                net::send(self.saved(*socket)?, b"!", flags).map(drop).map_err(call("send"))
            }
            Step::Accept { server, listener } => self.accept(*server, *listener),
            Step::Close { made } => {
                self.sockets.remove(made).map(drop).ok_or(StepError::Missing(*made))
            }
            Step::LeavePrivate => self.leave_private(),
            Step::Exchange { made, spot } => self.exchange(*made, spot),
            Step::Shutdown { socket, how } => {
                let how = match *how {
                    Shutdown::RECEIVE => net::Shutdown::Read,
                    Shutdown::SEND => net::Shutdown::Write,
                    _ => net::Shutdown::Both,
                };
                match net::shutdown(self.saved(*socket)?, how) {
                    // It is shut down all the same (`inet_shutdown`).
                    Err(Errno::NOTCONN) if is_inet(image, *socket) => Ok(()),
                    result => result.map_err(call("shutdown")),
                }
            }
            Step::SetOption { socket, option } => {
                match options::set(self.saved(*socket)?, option) {
                    // A kernel without the option (before 5.14) has no lock that could be seen.
                    Err(error)
                        if error.raw_os_error() == Some(libc::ENOPROTOOPT)
                            && *option == SocketOption::unlocked_buffers() =>
                    {
                        Ok(())
                    }
                    result => result.map_err(call("setsockopt")),
                }
            }
            Step::SetFilter { socket, filter } => filter::set(self.saved(*socket)?, filter)
                .map_err(|(call, source)| StepError::Call { call, source }),
            Step::SetFlags { socket, flags } => {
                let wanted = OFlags::from_bits_retain(flags.cast_unsigned());
                self.hasty.remove(&Holder::Saved(*socket));
                fcntl_setfl(self.saved(*socket)?, wanted).map_err(call("fcntl F_SETFL"))
            }
            Step::Notify { socket, notification, flags } => {
                arm::set(self.saved(*socket)?, *notification, *flags)
                    .map_err(call("fcntl F_SETOWN_EX, F_SETSIG, F_SETFL"))
            }
            Step::Attributes { made, mode, uid, gid, .. } => {
                self.set_attributes(*made, *mode, *uid, *gid)
            }
        }
    }
}

fn is_inet(image: &Image, socket: SocketIndex) -> bool {
    image.sockets.get(socket.get()).is_some_and(|saved| saved.inet.is_some())
}
