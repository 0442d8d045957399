//! Gives live processes what was made for them, all at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::standing::Changes;
use super::{Standing, Target};
use crate::image::{Connection, Image, Inet, Role, SocketIndex};
use crate::model::{Pid, Shutdown};
use crate::process::parasite::{Else, File, MOST_FILES, Order, Parasite, ParasiteError};
use crate::restore::execute::{ABORT, Restored, is_listener};
use crate::sys::guard::Barrier;
use crate::sys::sockopt::SO_DETACH_REUSEPORT_BPF;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Descriptors that have a new socket.
    pub descriptors: usize,
    /// Registrations of event polls that were renewed.
    pub registrations: usize,
}

/// Why nothing was placed; or, of [`Unplaced::Half`], not everything.
#[derive(Debug, thiserror::Error)]
pub enum Unplaced {
    /// A process makes no calls any more.
    #[error(transparent)]
    Parasite(#[from] ParasiteError),
    /// Somebody was quicker.
    #[error("something has come to descriptor {fd} of process {pid} meanwhile, and would be lost")]
    Late {
        /// Which process.
        pid: Pid,
        /// Which descriptor.
        fd: i32,
    },
    /// It has no room for so many descriptors.
    #[error("process {pid} has no room for {count} more descriptors (RLIMIT_NOFILE)")]
    Full {
        /// Which process.
        pid: Pid,
        /// How many more.
        count: usize,
    },
    /// It took longer than connections were kept from the network.
    #[error("the lock of TCP connections has ended meanwhile")]
    Expired,
    /// A call of ours.
    #[error("{call}")]
    Call {
        /// Which.
        call: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused what it does not refuse, after all had begun.
    #[error(
        "{call} in process {pid}, for descriptor {fd}: some sockets are the old ones, some the new ones"
    )]
    Half {
        /// In which process.
        pid: Pid,
        /// Which call.
        call: &'static str,
        /// For which descriptor.
        fd: i32,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn call<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Unplaced {
    move |error| Unplaced::Call { call, source: error.into() }
}

/// What a call of a list was for.
#[derive(Clone, Copy)]
enum Purpose {
    Wait,
    Forget,
    Set(i32),
    Put(i32),
    Watch(i32),
}

struct Ready<'a> {
    parasite: &'a mut Parasite,
    order: Order,
    purposes: Vec<Purpose>,
}

/// Puts every socket of the first of `made` at its numbers and renews what watches them. The others have made files
/// that take the place of others as well, and are done with when it is.
///
/// # Errors
///
/// See [`Unplaced`]; everything stands as before. What fails after all have been let through (a process died by then, or
/// [`Unplaced::Half`]) is told besides: the new sockets are what there is.
pub fn place(
    made: &mut [&mut Restored],
    image: &Image,
    targets: &[Target],
    standing: &Standing,
    parasites: &mut BTreeMap<Pid, Parasite>,
    barrier: &Barrier,
) -> Result<(Placed, Option<Unplaced>), Unplaced> {
    // From here on nothing comes to the old ones any more.
    made.iter().try_for_each(|restored| restored.hide_old()).map_err(call("setsockopt"))?;
    let Some(restored) = made.first() else { return Ok((Placed::default(), None)) };
    let mut ready = Vec::new();
    let mut quiet = Telling::default();
    for (saved, parasite) in parasites {
        let target = targets.iter().find(|target| target.saved == *saved);
        let Some(changes) = target.and_then(|target| standing.changes.get(&target.pid)) else {
            continue;
        };
        look_again(image, parasite, changes)?;
        quiet.find(image, parasite, changes)?;
        ready.push(prepare(image, restored, parasite, changes, barrier)?);
    }
    let mut begun = Vec::new();
    let mut failed = None;
    for ready in &mut ready {
        match ready.parasite.begin(&mut ready.order, &[]) {
            Ok(calls) => begun.push(calls),
            Err(error) => {
                failed = Some(Unplaced::from(error));
                break;
            }
        }
    }
    // If it stays closed, those that wait learn it, and do nothing.
    if failed.is_none() {
        failed = quiet.be_quiet().map_err(call("fcntl F_SETFL")).err();
    }
    // What came after its time was over is in no image.
    if failed.is_none() && restored.has_lock_ended() {
        failed = Some(Unplaced::Expired);
    }
    if failed.is_none() {
        failed = barrier.open(ready.len()).map_err(call("let all go on")).err();
    }
    let is_open = failed.is_none();
    if is_open {
        // Whatever comes now: the names lead to the new ones.
        made.iter_mut().for_each(|restored| {
            if let Err(error) = restored.discard_asides() {
                tracing::error!(%error, "failed to delete what was moved aside");
            }
            restored.make_final();
        });
    } else {
        // Before anybody else does it who sees that it is over.
        quiet.speak_again();
        made.iter_mut().for_each(|restored| restored.give_way());
        barrier.give_up();
    }
    let mut placed = Placed::default();
    for (ready, calls) in ready.iter_mut().zip(begun) {
        let results = ready.parasite.end(calls).map_err(Unplaced::from);
        match results.and_then(|results| judge(ready, &results)) {
            Ok(done) => {
                placed.descriptors += done.descriptors;
                placed.registrations += done.registrations;
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if !is_open => Err(error),
        failed => Ok((placed, failed)),
    }
}

/// Old sockets that tell of events by signals: of their end, too.
#[derive(Default)]
struct Telling(Vec<(OwnedFd, OFlags)>);

impl Telling {
    fn find(
        &mut self,
        image: &Image,
        parasite: &Parasite,
        changes: &Changes,
    ) -> Result<(), Unplaced> {
        for descriptor in &changes.descriptors {
            let saved = image.sockets.get(descriptor.socket.get());
            if saved.is_some_and(|saved| saved.status_flags & libc::O_ASYNC != 0) {
                let old = parasite.duplicate(descriptor.fd)?;
                let flags = fcntl_getfl(&old).map_err(call("fcntl F_GETFL"))?;
                self.0.push((old, flags));
            }
        }
        Ok(())
    }

    fn be_quiet(&self) -> io::Result<()> {
        let quiet = OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned()).complement();
        self.0.iter().try_for_each(|(old, flags)| Ok(fcntl_setfl(old, *flags & quiet)?))
    }

    fn speak_again(&self) {
        for (old, flags) in &self.0 {
            if let Err(error) = fcntl_setfl(old, *flags) {
                tracing::error!(%error, "failed to have a socket tell of events by signals again");
            }
        }
    }
}

/// Whether something may come to an internet socket that nothing keeps from it, and nothing is known to have come.
fn is_heard_of(inet: &Inet) -> bool {
    inet.tcp.is_none()
        && inet.local.is_some()
        && inet.waiting.is_empty()
        && inet.datagrams.is_empty()
}

/// Whether something has come to one of its sockets that is in no image: it would be lost.
fn look_again(image: &Image, parasite: &Parasite, changes: &Changes) -> Result<(), Unplaced> {
    let is_waited_at = |socket: SocketIndex| {
        image
            .connections
            .iter()
            .any(|c| matches!(*c, Connection::Waiting { listener, .. } if listener == socket))
    };
    for descriptor in &changes.descriptors {
        let Some(saved) = image.sockets.get(descriptor.socket.get()) else { continue };
        let is_found = match saved.role {
            // Whoever is deaf always seems to have got something.
            _ if saved.shutdown.0 & Shutdown::RECEIVE.0 != 0 => false,
            _ if saved.inet.is_some() => saved.inet.as_deref().is_some_and(is_heard_of),
            Role::Listening { .. } => !is_waited_at(descriptor.socket),
            Role::Unconnected => saved.name.is_some() && saved.queue.is_empty(),
            Role::Connected | Role::Embryo => false,
        };
        if !is_found {
            continue;
        }
        let old = parasite.duplicate(descriptor.fd)?;
        let mut waited = [PollFd::new(&old, PollFlags::IN)];
        poll(&mut waited, Some(&Timespec::default())).map_err(call("poll"))?;
        if waited.iter().any(|waited| waited.revents().contains(PollFlags::IN)) {
            return Err(Unplaced::Late { pid: parasite.pid(), fd: descriptor.fd });
        }
    }
    Ok(())
}

/// Sends a process what it is to have, and says what it is to do with it when the barrier opens.
fn prepare<'a>(
    image: &Image,
    restored: &Restored,
    parasite: &'a mut Parasite,
    changes: &Changes,
    barrier: &Barrier,
) -> Result<Ready<'a>, Unplaced> {
    let mut order = parasite.order();
    let sockets: BTreeSet<SocketIndex> = changes.descriptors.iter().map(|d| d.socket).collect();
    let mut sent: Vec<BorrowedFd<'_>> = vec![barrier.reader()];
    for socket in &sockets {
        let found = restored.socket(*socket).ok_or(io::ErrorKind::NotFound);
        sent.push(found.map_err(call("find a socket"))?);
    }
    let mut received = Vec::new();
    let files: Vec<Vec<_>> = sent.chunks(MOST_FILES).map(<[_]>::to_vec).collect();
    for files in &files {
        received.extend(order.receive(parasite.channel(), files.len()));
    }
    parasite.perform(&mut order, &files)?;
    let numbers = parasite.numbers(&received)?;
    if numbers.contains(&-1) {
        return Err(Unplaced::Full { pid: parasite.pid(), count: sent.len() });
    }
    let mut numbers = numbers.into_iter().map(File::Number);
    let gate = numbers.next().unwrap_or(File::Number(-1));
    let new: BTreeMap<SocketIndex, File> = sockets.into_iter().zip(numbers).collect();
    let mut purposes = vec![Purpose::Wait];
    let byte = order.put(&[0]);
    order.call(libc::SYS_read, gate, &[byte, 1], Else::StopIfNothing);
    let number = |number: i32| u64::from(number.cast_unsigned());
    for watch in &changes.registrations {
        let poll = File::Number(watch.poll);
        let rest = [number(libc::EPOLL_CTL_DEL), number(watch.fd), 0];
        // Another process may have the same event poll, and have been quicker.
        order.call(libc::SYS_epoll_ctl, poll, &rest, Else::GoOn);
        purposes.push(Purpose::Forget);
    }
    for descriptor in &changes.descriptors {
        let from = new.get(&descriptor.socket).copied().unwrap_or(File::Number(-1));
        let set = |order: &mut Order, name: i32, value: &[u8]| {
            let length = u64::try_from(value.len()).unwrap_or_default();
            let value = order.put(value);
            let rest = [number(libc::SOL_SOCKET), number(name), value, length];
            order.call(libc::SYS_setsockopt, File::Number(descriptor.fd), &rest, Else::GoOn)
        };
        let linger = restored.linger(descriptor.socket);
        if linger.is_some() && restored.is_beside(descriptor.socket) {
            // The old connection says nothing of its end.
            set(&mut order, libc::SO_LINGER, &ABORT);
            purposes.push(Purpose::Set(descriptor.fd));
        }
        let flags = if descriptor.close_on_exec { libc::O_CLOEXEC } else { 0 };
        let rest = [number(descriptor.fd), number(flags)];
        order.call(libc::SYS_dup3, from, &rest, Else::GoOn);
        purposes.push(Purpose::Put(descriptor.fd));
        if let Some(linger) = linger {
            set(&mut order, libc::SO_LINGER, linger);
            purposes.push(Purpose::Set(descriptor.fd));
        }
        if is_listener(image, descriptor.socket) {
            // A program chose it as long as the old one was there. Another process may have it as well, and have been quicker.
            set(&mut order, SO_DETACH_REUSEPORT_BPF, &0_i32.to_ne_bytes());
            purposes.push(Purpose::Forget);
        }
    }
    for watch in &changes.registrations {
        let event = order.put(&event(watch.events, watch.data));
        let rest = [number(libc::EPOLL_CTL_ADD), number(watch.fd), event];
        order.call(libc::SYS_epoll_ctl, File::Number(watch.poll), &rest, Else::GoOn);
        purposes.push(Purpose::Watch(watch.fd));
    }
    Ok(Ready { parasite, order, purposes })
}

/// `struct epoll_event`, which is packed on x86-64.
fn event(events: u32, data: u64) -> Vec<u8> {
    let padding = size_of::<libc::epoll_event>() - size_of::<u32>() - size_of::<u64>();
    [&events.to_ne_bytes()[..], &vec![0; padding], &data.to_ne_bytes()].concat()
}

/// Whether every call did what it was for.
fn judge(ready: &Ready<'_>, results: &[i64]) -> Result<Placed, Unplaced> {
    let pid = ready.parasite.pid();
    let mut placed = Placed::default();
    let half = |call: &'static str, fd: i32, result: i64| {
        let errno = i32::try_from(-result).unwrap_or(libc::EIO);
        let source = io::Error::from_raw_os_error(errno);
        Unplaced::Half { pid, call, fd, source }
    };
    for (purpose, result) in ready.purposes.iter().zip(results) {
        match (*purpose, *result) {
            (Purpose::Forget, _) | (Purpose::Wait, 1..) | (Purpose::Set(_), 0..) => {}
            (Purpose::Wait, error) => return Err(half("read", -1, error)),
            (Purpose::Put(_), 0..) => placed.descriptors += 1,
            (Purpose::Watch(_), 0..) => placed.registrations += 1,
            (Purpose::Watch(_), error) if error == -i64::from(libc::EEXIST) => {}
            (Purpose::Set(fd), error) => return Err(half("setsockopt", fd, error)),
            (Purpose::Put(fd), error) => return Err(half("dup3", fd, error)),
            (Purpose::Watch(fd), error) => return Err(half("epoll_ctl", fd, error)),
        }
    }
    Ok(placed)
}
