//! What stands at the numbers of an image, in processes that live, and what watches it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;

use rustix::fs::fstat;
use ucr_common::descriptor::SocketDescriptor;

use super::{IntoError, Target, kept, ports};
use crate::image::{Image, SocketIndex};
use crate::kernel::netns::{self, Inside};
use crate::model::Pid;
use crate::process::epoll::{Registration, Watches, watches};
use crate::restore::execute::Predecessor;
use crate::snapshot::descriptors::Lister;
use crate::sys::compare::same_file;

/// A descriptor that gets a new socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub fd: i32,
    /// The socket of the image.
    pub socket: SocketIndex,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
    /// The socket that is there: its inode, and its address in the kernel.
    pub there: (u64, u64),
    /// Whether it is the image's own.
    pub is_own: bool,
}

/// What is to be done in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) descriptors: Vec<Descriptor>,
    /// What watches a socket that is replaced.
    pub(super) registrations: Vec<Registration>,
    /// The highest number that is open.
    pub(super) highest: i32,
}

/// What is to be done in each process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub(super) changes: BTreeMap<Pid, Changes>,
    /// How many sockets of the image stay as they are.
    pub(super) kept: usize,
    /// The sockets that are replaced, by their inodes.
    replaced: HashSet<u32>,
    /// A process that is in their network namespace, if that is not ours.
    elsewhere: Option<Pid>,
}

impl Standing {
    /// How many sockets of the image stay as they are.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The live sockets that are replaced, by their inodes.
    #[must_use]
    pub fn replaced(&self) -> &HashSet<u32> {
        &self.replaced
    }

    /// Enters the network namespace of the sockets, if that is another one: new ones belong to it as well.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> io::Result<Option<Inside>> {
        let Some(pid) = self.elsewhere else { return Ok(None) };
        Inside::enter(&File::open(format!("/proc/{pid}/ns/net"))?).map(Some)
    }

    /// The internet sockets that are replaced by what an image has of them, each by a descriptor of a process that has
    /// it. (Into another process they may go in the place of sockets that have nothing to do with them.)
    #[must_use]
    pub fn predecessors(
        &self,
        image: &Image,
        targets: &[Target],
    ) -> BTreeMap<SocketIndex, Predecessor> {
        let mut found = BTreeMap::new();
        for target in targets {
            let Some(changes) = self.changes.get(&target.pid) else { continue };
            for Descriptor { fd, socket, there: (_, sk), is_own, .. } in &changes.descriptors {
                let saved = image.sockets.get(socket.get());
                if *is_own && saved.is_some_and(|saved| saved.inet.is_some()) {
                    let first = Predecessor { pid: target.saved, fd: *fd, sk: *sk };
                    found.entry(*socket).or_insert(first);
                }
            }
        }
        found
    }

    /// Descriptors at which a socket stands that is not the image's own: whose, which, and what is to stand there.
    pub(super) fn others(&self) -> impl Iterator<Item = (Pid, i32, SocketIndex)> {
        self.changes.iter().flat_map(|(pid, changes)| {
            let others = changes.descriptors.iter().filter(|descriptor| !descriptor.is_own);
            others.map(|descriptor| (*pid, descriptor.fd, descriptor.socket))
        })
    }

    /// How many descriptors a process may come to have, if the numbers up to the highest are all taken.
    pub(super) fn numbers_of(&self, pid: Pid) -> u64 {
        let changes = self.changes.get(&pid);
        let highest = changes.map_or(0, |changes| u64::try_from(changes.highest).unwrap_or(0));
        let more = changes.map_or(0, |changes| changes.descriptors.len());
        highest + 1 + u64::try_from(more).unwrap_or_default()
    }

    /// How many descriptors and registrations of a process change.
    pub(super) fn size_of(&self, pid: Pid) -> usize {
        self.changes.get(&pid).map_or(0, |c| c.descriptors.len() + c.registrations.len())
    }
}

/// Looks, and finds all that is in the way. The processes stand still. `is_there` are sockets that have been made already.
///
/// # Errors
///
/// All that is in the way.
pub fn look(
    image: &Image,
    targets: &[Target],
    lister: &mut Lister,
    is_there: impl Fn(SocketIndex) -> bool,
) -> Result<Standing, Vec<IntoError>> {
    let kept = kept(image);
    let mut errors = ports::refused(image, targets, is_there);
    let mut open: HashMap<(Pid, i32), SocketDescriptor> = HashMap::new();
    for target in targets {
        let listed = lister.sockets_of(target.pid).map_err(|error| vec![error.into()])?;
        for descriptor in listed {
            if descriptor.tid == descriptor.pid {
                open.insert((target.pid, descriptor.fd.cast_signed()), descriptor);
            } else {
                let thread = Pid(descriptor.tid.cast_signed());
                errors.push(IntoError::OwnTable { pid: target.pid, thread });
            }
        }
    }
    let mut standing = Standing::default();
    let mut namespaces = BTreeMap::new();
    let mut replaced: HashMap<u64, SocketIndex> = HashMap::new();
    for target in targets {
        let pid = target.pid;
        let mut changes = Changes::default();
        for saved in image.descriptors.iter().filter(|saved| saved.pid == target.saved) {
            if kept(saved.socket) {
                continue;
            }
            let fd = saved.fd;
            let Some(there) = open.get(&(pid, fd)) else {
                errors.push(other_than_a_socket(pid, fd));
                continue;
            };
            namespaces.entry(there.netns).or_insert((pid, fd));
            standing.replaced.extend(u32::try_from(there.socket.inode));
            if *replaced.entry(there.socket.sk).or_insert(saved.socket) != saved.socket {
                errors.push(IntoError::Shared { pid, fd });
            }
            let own = image.sockets.get(saved.socket.get());
            changes.descriptors.push(Descriptor {
                fd,
                socket: saved.socket,
                close_on_exec: saved.close_on_exec,
                there: (there.socket.inode, there.socket.sk),
                is_own: own.is_some_and(|own| u64::from(own.inode) == there.socket.inode),
            });
        }
        standing.changes.insert(pid, changes);
    }
    match elsewhere(&namespaces) {
        Ok(pid) => standing.elsewhere = pid,
        Err(error) => errors.push(error),
    }
    standing.kept = (0..).map(SocketIndex).zip(&image.sockets).filter(|(i, _)| kept(*i)).count();
    let changed = standing.changes.iter();
    let numbers =
        changed.flat_map(|(pid, changes)| changes.descriptors.iter().map(|d| (*pid, d.fd)));
    let numbers: HashSet<(Pid, i32)> = numbers.collect();
    let also = open.iter().filter(|(_, there)| replaced.contains_key(&there.socket.sk));
    let also = also.filter(|(number, _)| !numbers.contains(*number));
    errors.extend(also.map(|(&(pid, fd), _)| IntoError::HeldAlso { pid, fd }));
    match registrations(targets, &open, &replaced) {
        Ok(found) => {
            for (pid, watches) in found {
                let Some(changes) = standing.changes.get_mut(&pid) else { continue };
                let rings = watches.rings.iter();
                errors.extend(rings.map(|fd| IntoError::Ring { pid, fd: *fd }));
                let spent = watches.registrations.iter().filter(|watch| watch.is_spent());
                errors.extend(spent.map(|w| IntoError::Spent { pid, poll: w.poll, fd: w.fd }));
                let own = open.keys().filter(|(of, _)| *of == pid).map(|(_, fd)| *fd);
                changes.highest = own.max().unwrap_or(0).max(watches.highest);
                changes.registrations = watches.registrations;
            }
        }
        Err(error) => errors.extend(error),
    }
    if errors.is_empty() { Ok(standing) } else { Err(errors) }
}

/// Which process is in the one network namespace of all that is replaced, if it is not ours.
fn elsewhere(namespaces: &BTreeMap<u32, (Pid, i32)>) -> Result<Option<Pid>, IntoError> {
    let Some((netns, (pid, fd))) = namespaces.first_key_value() else { return Ok(None) };
    if let Some((pid, fd)) = namespaces.values().nth(1).copied() {
        return Err(IntoError::Namespaces { pid, fd });
    }
    let of = |path: &str| fs::metadata(path).map(|facts| facts.ino());
    if of(netns::OWN).is_ok_and(|own| own == u64::from(*netns)) {
        return Ok(None);
    }
    match of(&format!("/proc/{pid}/ns/net")) {
        Ok(theirs) if theirs == u64::from(*netns) => Ok(Some(*pid)),
        _ => Err(IntoError::Left { pid: *pid, fd: *fd }),
    }
}

fn other_than_a_socket(pid: Pid, fd: i32) -> IntoError {
    match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
        Ok(what) => IntoError::NoSocket { pid, fd, what: what.as_os_str().as_bytes().to_vec() },
        Err(error) if error.kind() == io::ErrorKind::NotFound => IntoError::NotOpen { pid, fd },
        Err(source) => IntoError::Look { pid, fd, source },
    }
}

/// What watches sockets that are replaced, in each process; each registration once.
fn registrations(
    targets: &[Target],
    open: &HashMap<(Pid, i32), SocketDescriptor>,
    replaced: &HashMap<u64, SocketIndex>,
) -> Result<Vec<(Pid, Watches)>, Vec<IntoError>> {
    let inodes: HashMap<u64, u64> = open
        .values()
        .filter(|there| replaced.contains_key(&there.socket.sk))
        .map(|there| (there.socket.inode, there.socket.sk))
        .collect();
    // As the kernel has it: sockets are on a device without a major number.
    let device = UnixDatagram::unbound().ok().and_then(|socket| fstat(socket).ok());
    let device = device.map(|facts| u64::from(libc::minor(facts.st_dev)));
    let mut all = Vec::new();
    for target in targets {
        let own = open.keys().filter(|(pid, _)| *pid == target.pid);
        let sockets: HashSet<i32> = own.map(|(_, fd)| *fd).collect();
        let mut found = watches(target.pid, &sockets).map_err(|error| vec![error.into()])?;
        found
            .registrations
            .retain(|watch| inodes.contains_key(&watch.inode.0) && Some(watch.inode.1) == device);
        all.push((target.pid, found));
    }
    let leads_there = |pid: Pid, watch: &Registration| {
        let there = open.get(&(pid, watch.fd)).map(|there| there.socket.sk);
        there.is_some() && there == inodes.get(&watch.inode.0).copied()
    };
    let mut errors = Vec::new();
    let known = all.clone();
    for (pid, watches) in &mut all {
        let pid = *pid;
        watches.registrations.retain(|watch| {
            if leads_there(pid, watch) {
                return true;
            }
            // An event poll that another process has as well, in which the number still leads there.
            let is_it = |(other, watches): &(Pid, Watches)| {
                let same = |w: &&Registration| {
                    let (poll, fd) = (watch.poll, watch.fd);
                    w.fd == fd
                        && w.inode == watch.inode
                        && leads_there(*other, w)
                        && same_file((other.0, w.poll), (pid.0, poll)).unwrap_or(false)
                };
                *other != pid && watches.registrations.iter().any(|w| same(&w))
            };
            if !known.iter().any(is_it) {
                errors.push(IntoError::Elsewhere { pid, poll: watch.poll, fd: watch.fd });
            }
            false
        });
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}
