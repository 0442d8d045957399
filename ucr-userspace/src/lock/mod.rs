//! Keeps the network from TCP connections while they are taken down or brought back: eBPF programs drop their
//! packets, those of no other connection, and not for ever.
//!
//! A lock is held by the descriptors of whoever took it: it ends with its process, however that ends. [`Lock::keep`]
//! pins it, so that it outlives its process; [`kept::release`] is for whoever brings the connections back. In any
//! case the programs themselves let packets pass again when the time is over that was said.

mod early;
mod filters;
pub mod kept;
mod notes;
pub mod object;
mod traffic;

pub use early::Way;

use core::net::IpAddr;
use std::{
    collections::HashSet,
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use aya::{
    maps::{HashMap, Map, MapData, MapError},
    programs::ProgramError,
    sys::SyscallError,
};
use aya_obj::generated::bpf_attach_type;
use ucr_common::lock::{Direction, Locked};

use early::Early;
use object::Object;

use crate::{
    kernel::clock,
    model::inet::{Endpoint, Family},
    sys::bpf,
    tracer::TracerError,
};

/// For how long a lock holds if nobody says otherwise.
pub const USUAL: Duration = Duration::from_secs(600);

/// Name of the map, also of its pin.
const MAP: &str = "LOCKS";

/// The programs of the cgroup tree.
const PROGRAMS: [(&str, bpf_attach_type); 2] = [
    ("lock_ingress", bpf_attach_type::BPF_CGROUP_INET_INGRESS),
    ("lock_egress", bpf_attach_type::BPF_CGROUP_INET_EGRESS),
];

/// That of interfaces, and what calls it where it does not hang there itself.
const EARLY: &str = "lock_early";
const FILTER: &str = "lock_filter";

/// With what they are called.
type Links = Vec<(String, OwnedFd)>;

type Locks = HashMap<MapData, [u8; size_of::<Direction>()], [u8; size_of::<Locked>()]>;

/// Why connections could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The programs could not be loaded or pinned.
    #[error("lock TCP connections")]
    Tracer(#[from] TracerError),
    /// The program could not be loaded or attached.
    #[error("load or attach eBPF program {program}")]
    Program {
        /// Its name in the object.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// No cgroup v2 file system.
    #[error("find the root of the cgroup tree: no cgroup2 file system is mounted")]
    NoCgroups,
    /// A file or directory.
    #[error("{operation} {path}")]
    Files {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Traffic control at an interface.
    #[error("{operation} interface {interface}")]
    Interface {
        /// What was tried.
        operation: &'static str,
        /// Its name.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else sees packets first and may let them in.
    #[error(
        "hang a filter on interface {interface}: somebody else's ({kind}, priority {priority}) comes before it and \
         may let packets in"
    )]
    Behind {
        /// Its name.
        interface: String,
        /// What it is.
        kind: String,
        /// Where it is.
        priority: u16,
    },
    /// The map does not take it.
    #[error("write to the map of locked connections")]
    Map(#[source] Box<MapError>),
    /// Its time was over while the sockets were read.
    #[error("the lock of TCP connections ended before their processes did (--lock-for)")]
    Expired,
    /// Somebody else has locked it.
    #[error("the connection from {local} to {remote} is locked by an earlier dump")]
    Taken {
        /// Our end.
        local: Endpoint,
        /// The other.
        remote: Endpoint,
    },
}

impl LockError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Tracer(error) => error.hint(),
            Self::NoCgroups => {
                Some("mount one, for example: mount -t cgroup2 none /sys/fs/cgroup/unified")
            }
            Self::Taken { .. } => Some("restore that dump's image, or wait until its lock ends"),
            _ => None,
        }
    }
}

impl From<MapError> for LockError {
    fn from(error: MapError) -> Self {
        Self::Map(Box::new(error))
    }
}

/// A connection: who is at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Our end.
    pub local: Endpoint,
    /// The other.
    pub remote: Endpoint,
}

impl Connection {
    /// Whether it is over IPv6, and not over IPv4 in disguise.
    #[must_use]
    pub fn is_over_ipv6(&self) -> bool {
        self.remote.unmapped().family() == Family::V6
    }

    fn directions(&self) -> [Direction; 2] {
        let way = |from: Endpoint, to: Endpoint| Direction {
            from: octets(from.address),
            to: octets(to.address),
            from_port: from.port.to_be_bytes(),
            to_port: to.port.to_be_bytes(),
        };
        [way(self.local, self.remote), way(self.remote, self.local)]
    }

    fn keys(&self) -> [Key; 2] {
        self.directions().map(|direction| zerocopy::transmute!(direction))
    }
}

/// A direction, as it stands in the map.
type Key = [u8; size_of::<Direction>()];

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Connections that nothing comes through.
#[derive(Debug)]
pub struct Lock {
    locks: Locks,
    /// Programs hang as long as these are open.
    links: Links,
    /// What drops packets at the interfaces, once that is wanted.
    early: Option<Early>,
    object: Object,
    mark: u32,
    duration: Duration,
    connections: Vec<Connection>,
    /// What is written down of them.
    keys: HashSet<Key>,
    /// How many of them nobody else has locked any more.
    own: usize,
    /// When the first of them is let through again, boot time.
    ends_at: u64,
}

impl Lock {
    /// Loads and attaches the programs; nothing is locked yet.
    ///
    /// # Errors
    /// A kernel that refuses one of them, or without a cgroup tree.
    pub fn prepare(duration: Duration) -> Result<Self, LockError> {
        let mut object = Object::open()?;
        let root = cgroup_root()?;
        let mut links = Links::new();
        for (name, attach_type) in PROGRAMS {
            let (program, target) = (object.program(name)?, root.as_raw_fd().cast_unsigned());
            // A link stands beside others in any case, and takes no flags.
            let link = bpf::link(program.as_fd(), target, attach_type as u32, 0);
            links.push((name.to_owned(), link.map_err(failed(name, LINK))?));
        }
        let locks = Locks::try_from(Map::from_map_data(object.map(MAP)?)?)?;
        Ok(Self {
            locks,
            links,
            early: None,
            object,
            mark: random(),
            duration,
            connections: Vec::new(),
            keys: HashSet::new(),
            own: 0,
            ends_at: u64::MAX,
        })
    }

    /// From now on connections over IPv6 whose socket is gone are silent as well, at all interfaces that this network
    /// namespace has. The answers to those over IPv4 are dropped in any case.
    ///
    /// # Errors
    /// A kernel that lets nobody hang a program on an interface, or one where somebody else is in the way.
    pub fn silence(&mut self) -> Result<(), LockError> {
        if self.early.is_none() {
            self.early = Some(Early::attach(&mut self.object)?);
        }
        Ok(())
    }

    /// How that is done, found out without touching any interface that others use.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn try_silence(&mut self) -> Result<Way, LockError> {
        early::attempt(&mut self.object)
    }

    /// Whether nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// `SO_MARK` of what passes all the same.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Locks one more. If it is locked already, also by its other end, nothing changes.
    ///
    /// # Errors
    /// [`LockError::Map`].
    pub fn add(&mut self, connection: Connection) -> Result<(), LockError> {
        let keys = connection.keys();
        if keys.iter().all(|key| self.keys.contains(key)) {
            return Ok(());
        }
        self.write(&connection)?;
        self.keys.extend(keys);
        self.connections.push(connection);
        Ok(())
    }

    /// Has what passes the kept lock of a connection pass this one as well, and the other way round.
    ///
    /// # Errors
    /// Those of [`kept::mark`].
    pub fn join(&mut self, connection: Connection) -> Result<(), LockError> {
        if self.connections.is_empty()
            && let Some(mark) = kept::mark(connection)?
        {
            self.mark = mark;
        }
        Ok(())
    }

    /// Whether something may have come through by now.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        clock::boottime() >= self.ends_at
    }

    /// Takes out of kept locks what this one has as well: from now on it alone holds it.
    ///
    /// # Errors
    /// Those of [`kept::release`].
    pub fn take_over(&mut self) -> Result<(), LockError> {
        let new = self.connections.get(self.own..).unwrap_or_default();
        if !new.is_empty() {
            kept::release(new)?;
            self.own = self.connections.len();
        }
        Ok(())
    }

    fn write(&mut self, connection: &Connection) -> Result<(), LockError> {
        let duration = u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX);
        let until = clock::boottime().saturating_add(duration);
        self.ends_at = self.ends_at.min(until);
        let locked = Locked { until, mark: self.mark, reserved: 0 };
        let value: [u8; size_of::<Locked>()] = zerocopy::transmute!(locked);
        for key in connection.keys() {
            self.locks.insert(key, value, 0)?;
        }
        Ok(())
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// [`LockError::Map`].
    pub fn release(mut self) -> Result<(), LockError> {
        self.keys.iter().try_for_each(|key| self.locks.remove(key)).map_err(LockError::from)
    }
}

/// What hangs a program somewhere.
const LINK: &str = "bpf_link_create";

fn failed(program: &'static str, call: &'static str) -> impl Fn(io::Error) -> LockError {
    move |io_error| {
        let source = ProgramError::SyscallError(SyscallError { call, io_error });
        LockError::Program { program, source: Box::new(source) }
    }
}

/// The root of the cgroup tree (v2).
fn cgroup_root() -> Result<File, LockError> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let failed =
        |operation, path: PathBuf| move |source| LockError::Files { operation, path, source };
    let mounts = fs::read_to_string(MOUNTS).map_err(failed("read", MOUNTS.into()))?;
    let root = mounts.lines().find_map(cgroup_mount).ok_or(LockError::NoCgroups)?;
    File::open(&root).map_err(failed("open", root))
}

/// Where a line of `mountinfo` says that the whole tree is mounted.
fn cgroup_mount(line: &str) -> Option<PathBuf> {
    // Number, parent, device, root, mount point, options, optional fields, `-`, type.
    let (before, behind) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let is_it = behind.split(' ').next() == Some("cgroup2") && root == "/";
    is_it.then(|| PathBuf::from(point))
}

/// A number that nobody else marks packets with; never 0, which packets have that nobody marks.
fn random() -> u32 {
    let number = RandomState::new().hash_one(std::process::id());
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_locked_and_ipv4_is_written_as_ipv6() {
        let end = |text: &str| Endpoint::from(text.parse::<core::net::SocketAddr>().expect("it"));
        let plain = Connection { local: end("10.0.0.1:80"), remote: end("10.0.0.2:5000") };
        let mapped = Connection {
            local: end("[::ffff:10.0.0.1]:80"),
            remote: end("[::ffff:10.0.0.2]:5000"),
        };
        assert_eq!(plain.directions(), mapped.directions());
        let [there, back] = plain.directions();
        assert_eq!((there.from, there.to_port), (back.to, back.from_port));
    }

    #[test]
    fn the_cgroup_tree_is_found_where_it_is_mounted_as_a_whole() {
        let line = |root: &str, kind: &str| {
            format!(
                "41 32 0:30 {root} /sys/fs/cgroup/unified rw,relatime shared:9 - {kind} cgroup2 rw"
            )
        };
        let found = cgroup_mount(&line("/", "cgroup2"));
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup_mount(&line("/a.slice", "cgroup2")), None);
        assert_eq!(cgroup_mount(&line("/", "cgroup")), None);
    }
}
