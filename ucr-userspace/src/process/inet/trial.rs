//! Which options of internet sockets their likeness tells of: each that can be set is set on a socket of our own, which
//! has to become unlike what it was. The others are asked for, of each socket.

use std::{
    collections::HashSet,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
};

use super::{MAX_LEN, set};
use crate::{
    image::{InetOption, SocketOption},
    model::{
        inet::Over,
        inet_options,
        option_table::{SO_TIMESTAMP_NEW, SO_TIMESTAMPING_NEW, SO_TIMESTAMPNS_NEW, TABLE},
    },
    process::{
        options,
        states::{CHANGES, Change},
    },
    snapshot::memory::{Memory, MemoryError},
    sys::sockopt,
};

/// Options whose value depends on more than on what was set: on the buffers, the last packet, the route.
const VARY: [i32; 3] = [libc::SO_SNDBUF, libc::SO_RCVBUF, libc::SO_INCOMING_CPU];

/// With any of these on an internet socket the kernel stamps all packets of the host. They lie where those of unix
/// sockets do, on which they can be tried.
const STAMPS: [i32; 6] = [
    libc::SO_TIMESTAMP,
    libc::SO_TIMESTAMPNS,
    libc::SO_TIMESTAMPING,
    SO_TIMESTAMP_NEW,
    SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPING_NEW,
];

/// The same of the others. Some change something for the whole host, or the namespace, when they are set for the first time,
/// and are not tried for that.
const VARY_OR_SPREAD: [(i32, i32); 12] = [
    (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::SOL_IPV6, libc::IPV6_MULTICAST_HOPS),
    (libc::SOL_TCP, libc::TCP_MAXSEG),
    (libc::SOL_TCP, libc::TCP_WINDOW_CLAMP),
    (libc::SOL_TCP, libc::TCP_QUICKACK),
    (libc::SOL_IP, libc::IP_MINTTL),
    (libc::SOL_IPV6, inet_options::IPV6_MINHOPCOUNT),
    (libc::SOL_TCP, inet_options::TCP_TX_DELAY),
    (libc::SOL_TCP, libc::TCP_FASTOPEN),
    (libc::SOL_TCP, libc::TCP_FASTOPEN_KEY),
    (libc::SOL_UDP, inet_options::UDP_ENCAP),
    (libc::SOL_UDP, libc::UDP_GRO),
];

/// Options that are the same for sockets that are alike.
#[derive(Debug, Default)]
pub(super) struct Told {
    general: HashSet<i32, foldhash::fast::RandomState>,
    inet: HashSet<(i32, i32), foldhash::fast::RandomState>,
}

impl Told {
    pub(super) fn general(&self, name: i32) -> bool {
        self.general.contains(&name)
    }

    pub(super) fn inet(&self, level: i32, number: i32) -> bool {
        self.inet.contains(&(level, number))
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.general.is_empty() && self.inet.is_empty()
    }
}

/// What was found out of this kernel.
static KNOWN: Mutex<Vec<(Over, Arc<Told>)>> = Mutex::new(Vec::new());

/// Which options the likeness of sockets of this kind tells; none if that cannot be tried.
pub(super) fn told(memory: &Memory, kind: Over) -> Arc<Told> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, told)) = known.iter().find(|(of, _)| *of == kind) {
        return Arc::clone(told);
    }
    match attempt(memory, kind) {
        Ok(Some(told)) => {
            let told = Arc::new(told);
            known.push((kind, Arc::clone(&told)));
            told
        }
        Ok(None) => Arc::default(),
        Err(error) => {
            tracing::debug!(%error, %kind, "all options of all sockets are asked for");
            Arc::default()
        }
    }
}

pub(super) fn attempt(memory: &Memory, kind: Over) -> Result<Option<Told>, MemoryError> {
    let mut told = Told::default();
    let Some((socket, sk)) = memory.inet_specimen(kind) else { return Ok(None) };
    let mut of_inet = |into: &mut Vec<u8>| {
        memory.look_anew();
        memory.inet_likeness(sk, kind.1, kind.0.is_datagram(), into)
    };
    for known in TABLE.iter().filter(|known| !VARY.contains(&known.number)) {
        let is_told = if STAMPS.contains(&known.number) {
            let Some((socket, sk)) = memory.specimen() else { continue };
            let sock = memory.sock(sk)?;
            is_told(&General(socket, known.number), |into| memory.likeness(&sock, into))?
        } else {
            is_told(&General(socket, known.number), &mut of_inet)?
        };
        if is_told {
            told.general.insert(known.number);
        }
    }
    for known in inet_options::of(kind.0) {
        let option = (known.level, known.number);
        if !VARY_OR_SPREAD.contains(&option) && is_told(&Special(socket, option), &mut of_inet)? {
            told.inet.insert(option);
        }
    }
    Ok(Some(told))
}

/// Ways to make another value out of one: those of all options, what lies within the limits of times, and an interface
/// in the order of the network.
pub(super) const WAYS: [Change; 6] = {
    let [a, b, c, d] = CHANGES;
    [a, b, c, d, |_| 100_000_i32.to_ne_bytes().to_vec(), |_| 1_i32.to_be_bytes().to_vec()]
};

/// An option of a socket of ours.
trait Tried {
    fn get(&self) -> Option<Vec<u8>>;
    fn set(&self, value: Vec<u8>) -> bool;
    /// What else it can be.
    fn changes(&self) -> &'static [Change] {
        &CHANGES
    }
}

struct General<'a>(BorrowedFd<'a>, i32);

impl Tried for General<'_> {
    fn get(&self) -> Option<Vec<u8>> {
        sockopt::get(self.0, self.1).ok()
    }

    fn set(&self, value: Vec<u8>) -> bool {
        options::set(self.0, &SocketOption { name: self.1, value }).is_ok()
    }
}

struct Special<'a>(BorrowedFd<'a>, (i32, i32));

impl Tried for Special<'_> {
    fn get(&self) -> Option<Vec<u8>> {
        sockopt::get_at(self.0, self.1.0, self.1.1, MAX_LEN).ok()
    }

    fn set(&self, value: Vec<u8>) -> bool {
        let (level, number) = self.1;
        set(self.0, &InetOption { level, number, value }).is_ok()
    }

    fn changes(&self) -> &'static [Change] {
        match self.1 {
            // What is no algorithm the kernel would look for on the disk.
            (libc::SOL_TCP, libc::TCP_CONGESTION) => &[|_| b"reno".to_vec()],
            // Nothing, four times.
            (libc::SOL_IP, libc::IP_OPTIONS) => &[|_| vec![1; 4]],
            _ => &WAYS,
        }
    }
}

/// Whether an option was changed and the likeness with it: what we may not set, or this kernel does not have, cannot be
/// tried.
fn is_told(
    option: &impl Tried,
    mut likeness: impl FnMut(&mut Vec<u8>) -> Result<(), MemoryError>,
) -> Result<bool, MemoryError> {
    let Some(old) = option.get() else { return Ok(false) };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    likeness(&mut before)?;
    let is_changed = option
        .changes()
        .iter()
        .any(|change| option.set(change(&old)) && option.get().is_some_and(|new| new != old));
    likeness(&mut after)?;
    // Some have a say in what others can be: an interface, for one.
    option.set(old);
    Ok(is_changed && before != after)
}
