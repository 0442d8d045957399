//! What is written down of filters, so that whoever runs next takes off what somebody left who was killed.
//!
//! Directories that have nothing in them but are called after it:
//!
//! ```text
//! /sys/fs/bpf/ucr-lock/PID-TIME/filter-NAMESPACE-INTERFACE-PRIORITY-HANDLE-PROGRAM
//! /sys/fs/bpf/ucr-lock/clsact-NAMESPACE-INTERFACE
//! ```
//!
//! Their maker has the directory `PID-TIME` locked (`flock`) as long as it lives. Room for filters (`clsact`) is
//! everybody's: that ucr made it is written down once for all, and the last one takes it away.

use std::{
    collections::HashSet,
    fmt::{self, Display, Formatter},
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use aya::programs::loaded_programs;
use nix::{
    fcntl::{Flock, FlockArg},
    net::if_::if_indextoname,
};

use super::{
    FILTER, LockError,
    kept::{DIRECTORY, files},
    traffic::{Filter, Place, Side, Traffic},
};
use crate::kernel::netns;

/// How what is written down begins.
const HUNG: &str = "filter-";
const ROOM: &str = "clsact-";

/// A filter that was hung up, or was just about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hung {
    /// Cookie of the network namespace.
    pub(super) namespace: u64,
    pub(super) interface: u32,
    pub(super) place: Place,
    /// Number of the program.
    pub(super) program: u32,
}

/// Room for filters that was made by ucr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Room {
    pub(super) namespace: u64,
    pub(super) interface: u32,
}

/// Whether whoever hung up what is written down in a directory lives.
pub(super) fn has_maker(directory: &Path) -> Result<bool, LockError> {
    let file = File::open(directory).map_err(files("open", directory))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => Ok(false),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(files("lock", directory)(errno.into())),
    }
}

/// Whether a directory stands for room that was made.
pub(super) fn is_room(path: &Path) -> bool {
    parsed::<Room>(path).is_some()
}

/// Takes off what is written down in a directory, as far as it hangs in this network namespace; what hangs in others
/// is for whoever runs there.
pub(super) fn take_off(directory: &Path) -> Result<(), LockError> {
    let written = written::<Hung>(directory)?;
    if written.is_empty() {
        return Ok(());
    }
    let (traffic, namespace) = (open()?, own_namespace()?);
    for (path, hung) in written {
        if hung.namespace == namespace {
            hung.take_off(&traffic)?;
        } else if is_loaded(hung.program) {
            tracing::debug!(%hung, "a filter hangs in another network namespace");
            continue;
        }
        fs::remove_dir(&path).map_err(files("remove directory", &path))?;
    }
    Ok(())
}

/// Takes away the room that was made for filters, where nobody has one any more.
pub(super) fn clear_rooms() -> Result<(), LockError> {
    let rooms = written::<Room>(Path::new(DIRECTORY))?;
    if rooms.is_empty() {
        return Ok(());
    }
    let (traffic, namespace) = (open()?, own_namespace()?);
    let mut ours = HashSet::new();
    let directory = Path::new(DIRECTORY);
    for entry in fs::read_dir(directory).map_err(files("list", directory))?.flatten() {
        let hung = written::<Hung>(&entry.path())?.into_iter().map(|(_, hung)| hung.room());
        ours.extend(hung);
    }
    for (path, room) in rooms {
        if room.namespace == namespace {
            if ours.contains(&room) {
                continue;
            }
            room.clear(&traffic)?;
        } else if ours.iter().any(|other| other.namespace == room.namespace) {
            continue;
        }
        fs::remove_dir(&path).map_err(files("remove directory", &path))?;
    }
    Ok(())
}

impl Hung {
    fn room(self) -> Room {
        Room { namespace: self.namespace, interface: self.interface }
    }

    /// Unless somebody else's is there by now, or nothing.
    fn take_off(self, traffic: &Traffic) -> Result<(), LockError> {
        let failed = || at("take a filter off", &name_of(self.interface));
        let there = traffic.filters(self.interface, Side::In).map_err(failed())?;
        if there.iter().any(|filter| self.is(filter)) {
            let removed = traffic.remove(self.interface, self.place);
            removed.or_else(unless_removed).map_err(failed())?;
        }
        Ok(())
    }

    fn is(&self, filter: &Filter) -> bool {
        let program = filter.program.as_ref();
        filter.place == self.place
            && program.is_some_and(|(name, number)| name == FILTER && *number == self.program)
    }
}

impl Room {
    /// Whoever has a filter there by now needs it.
    fn clear(self, traffic: &Traffic) -> Result<(), LockError> {
        let failed = || at("take away the room for filters (clsact) at", &name_of(self.interface));
        for side in [Side::In, Side::Out] {
            if !traffic.filters(self.interface, side).map_err(failed())?.is_empty() {
                return Ok(());
            }
        }
        traffic.remove_room(self.interface).or_else(unless_removed).map_err(failed())
    }
}

impl Display for Hung {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { namespace, interface, place: Place { priority, handle }, program } = self;
        write!(f, "{HUNG}{namespace}-{interface}-{priority}-{handle}-{program}")
    }
}

impl FromStr for Hung {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let [namespace, interface, priority, handle, program] = numbers(name, HUNG)?;
        let narrow = |number: u64| u32::try_from(number).map_err(drop);
        let place = Place { priority: priority.try_into().map_err(drop)?, handle: narrow(handle)? };
        Ok(Self { namespace, interface: narrow(interface)?, place, program: narrow(program)? })
    }
}

impl Display for Room {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOM}{}-{}", self.namespace, self.interface)
    }
}

impl FromStr for Room {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let [namespace, interface] = numbers(name, ROOM)?;
        Ok(Self { namespace, interface: interface.try_into().map_err(drop)? })
    }
}

fn numbers<const N: usize>(name: &str, prefix: &str) -> Result<[u64; N], ()> {
    let numbers = name.strip_prefix(prefix).ok_or(())?.split('-');
    let numbers = numbers.map(str::parse).collect::<Result<Vec<u64>, _>>().map_err(drop)?;
    numbers.try_into().map_err(drop)
}

fn parsed<T: FromStr>(path: &Path) -> Option<T> {
    path.file_name()?.to_str()?.parse().ok()
}

/// What is written down in a directory; nothing in one that is not there.
fn written<T: FromStr>(directory: &Path) -> Result<Vec<(PathBuf, T)>, LockError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(files("list", directory))?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter_map(|path| Some((path.clone(), parsed(&path)?))).collect())
}

pub(super) fn note(path: &Path) -> Result<(), LockError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(files("create directory", path)),
    }
}

pub(super) fn maker(directory: &Path) -> Result<Flock<File>, LockError> {
    let file = File::open(directory).map_err(files("open", directory))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| files("lock", directory)(errno.into()))
}

fn is_loaded(program: u32) -> bool {
    // One that is unloaded meanwhile is an error.
    loaded_programs().flatten().any(|info| info.id() == program)
}

pub(super) fn open() -> Result<Traffic, LockError> {
    Traffic::open().map_err(|source| LockError::Files {
        operation: "ask for traffic control in",
        path: netns::OWN.into(),
        source,
    })
}

pub(super) fn own_namespace() -> Result<u64, LockError> {
    netns::cookie().map_err(|source| LockError::Files {
        operation: "ask for the cookie of",
        path: netns::OWN.into(),
        source,
    })
}

pub(super) fn at(
    operation: &'static str,
    interface: &str,
) -> impl FnOnce(io::Error) -> LockError + use<> {
    let interface = interface.to_owned();
    move |source| LockError::Interface { operation, interface, source }
}

fn name_of(interface: u32) -> String {
    let name = if_indextoname(interface).ok();
    name.map_or_else(|| format!("number {interface}"), |name| name.to_string_lossy().into_owned())
}

/// So may what was there.
fn unless_removed(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENOENT | libc::EINVAL) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again() {
        let place = Place { priority: 1, handle: 0xbfd8_142e };
        let hung = Hung { namespace: u64::MAX, interface: 4, place, program: 5826 };
        assert_eq!(hung.to_string(), "filter-18446744073709551615-4-1-3218609198-5826");
        assert_eq!(hung.to_string().parse(), Ok(hung));
        let room = hung.room();
        assert_eq!(room.to_string(), "clsact-18446744073709551615-4");
        assert_eq!(room.to_string().parse(), Ok(room));
        for name in ["clsact-3", "clsact-3-4-5", "clsact-3-x", "mounted", "7226-1727048271402"] {
            assert_eq!(name.parse::<Room>(), Err(()), "{name}");
        }
        // Of a priority that there is not.
        assert_eq!("filter-3-4-65536-1-5826".parse::<Hung>(), Err(()));
    }

    #[test]
    fn a_filter_is_ours_by_place_name_and_program() {
        let place = Place { priority: 1, handle: 7 };
        let hung = Hung { namespace: 3, interface: 4, place, program: 5826 };
        let there = |place, name: &str, program| Filter {
            place,
            protocol: 3,
            chain: 0,
            kind: "bpf".to_owned(),
            program: Some((name.to_owned(), program)),
        };
        assert!(hung.is(&there(place, FILTER, 5826)));
        assert!(!hung.is(&there(place, FILTER, 5827)));
        assert!(!hung.is(&there(place, "cil_from_netdev", 5826)));
        assert!(!hung.is(&there(Place { priority: 1, handle: 8 }, FILTER, 5826)));
        assert!(!hung.is(&Filter { program: None, ..there(place, FILTER, 5826) }));
    }
}
