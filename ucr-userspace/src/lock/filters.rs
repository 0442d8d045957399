//! Filters at interfaces that drop what comes for locked connections, for kernels without links for that.
//!
//! A filter stays where it is when its maker is killed. So what is hung up does nothing by itself: it calls a program
//! in a map that the kernel empties with its last descriptor or pin. And it is written down first (`notes`), so that
//! whoever runs next takes it off.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapError};
use nix::{fcntl::Flock, net::if_::if_nameindex};

use super::{
    EARLY, FILTER, LockError, failed,
    kept::{self, DIRECTORY, files},
    notes::{Hung, Room, at, maker, note, open, own_namespace},
    object::Object,
    random,
    traffic::{ALL_PROTOCOLS, Filter, Place, Side, Traffic},
};
use crate::{
    kernel::netns,
    sys::{bpf, load},
    tracer::TracerError,
};

/// Name of the map that has the program which they call, also of its pin.
const MAP: &str = "LOCK_EARLY";

/// `ETH_P_IPV6`, which libc has as another type.
const IPV6: u16 = 0x86dd;

/// Index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// Filters on the interfaces of a network namespace. Dropping them takes them off.
#[derive(Debug)]
pub(super) struct Filters {
    directory: PathBuf,
    map: MapData,
    /// Tells others that somebody answers for the directory.
    _maker: Flock<File>,
    stays: bool,
}

impl Filters {
    /// Hangs them in front of all that looks at packets, or says which interface there is no place at.
    pub(super) fn hang(object: &mut Object) -> Result<Self, LockError> {
        let (map, program) = prepare(object)?;
        let turn = kept::directory()?;
        let directory = kept::new_directory()?;
        let maker = match maker(&directory) {
            Ok(maker) => maker,
            Err(error) => {
                fs::remove_dir(&directory).ok();
                return Err(error);
            }
        };
        let filters = Self { directory, map, _maker: maker, stays: false };
        let hung = filters.hang_each(program.as_fd());
        // Whoever takes them off again waits for the turn.
        drop(turn);
        hung.map(|()| filters)
    }

    /// Where they are written down, and pins may stand.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Pins what makes them drop packets.
    pub(super) fn pin(&self) -> Result<(), LockError> {
        let path = self.directory.join(MAP);
        self.map.pin(&path).map_err(|source| TracerError::Pin { path, source }.into())
    }

    /// Leaves them where they are.
    pub(super) fn stay(mut self) {
        self.stays = true;
    }

    fn hang_each(&self, program: BorrowedFd<'_>) -> Result<(), LockError> {
        let number = bpf::program_id(program).map_err(failed(FILTER, "read fdinfo"))?;
        let traffic = open()?;
        let namespace = own_namespace()?;
        let interfaces = if_nameindex().map_err(|errno| no_interfaces(errno.into()))?;
        for interface in &interfaces {
            let room = Room { namespace, interface: interface.index() };
            let name = interface.name().to_string_lossy();
            let hung = self.hang_at(&traffic, room, &name, (number, program));
            hung.or_else(unless_gone)?;
        }
        Ok(())
    }

    fn hang_at(
        &self,
        traffic: &Traffic,
        room: Room,
        name: &str,
        (program, descriptor): (u32, BorrowedFd<'_>),
    ) -> Result<(), LockError> {
        provide(traffic, room, name)?;
        let Room { namespace, interface } = room;
        let place = free_place(traffic, interface, name)?;
        let hung = Hung { namespace, interface, place, program };
        note(&self.directory.join(hung.to_string()))?;
        let added = traffic.add(interface, place, descriptor, FILTER);
        added.map_err(at("hang a filter on", name))
    }
}

impl Drop for Filters {
    fn drop(&mut self) {
        if !self.stays
            && let Err(error) = kept::forget(&self.directory)
        {
            tracing::warn!(%error, "failed to take filters off: the next run tries again");
        }
    }
}

/// Whether filters can be hung up at all, tried where nobody is in the way: in a network namespace of one's own.
pub(super) fn attempt(object: &mut Object) -> Result<(), LockError> {
    let (_map, program) = prepare(object)?;
    let traffic = open()?;
    traffic.make_room(LOOPBACK).map_err(at("make room for filters (clsact) at", "lo"))?;
    let place = Place { priority: 1, handle: random() };
    traffic.add(LOOPBACK, place, program.as_fd(), FILTER).map_err(at("hang a filter on", "lo"))?;
    own_namespace().map(drop)
}

/// What calls the program that drops packets, and the map by which it does.
fn prepare(object: &mut Object) -> Result<(MapData, OwnedFd), LockError> {
    let early = object.program(EARLY)?;
    let mut caller = Object::open_caller()?;
    let map = caller.map(MAP)?;
    load::fill(&map, &early.as_raw_fd().to_ne_bytes()).map_err(MapError::IoError)?;
    Ok((map, caller.program(FILTER)?))
}

/// Sees to it that there is room for filters at an interface.
fn provide(traffic: &Traffic, room: Room, name: &str) -> Result<(), LockError> {
    let failed = || at("make room for filters (clsact) at", name);
    if traffic.has_room(room.interface).map_err(failed())? {
        return Ok(());
    }
    let path = Path::new(DIRECTORY).join(room.to_string());
    note(&path)?;
    let made = traffic.make_room(room.interface);
    if made.is_err() {
        fs::remove_dir(&path).map_err(files("remove directory", &path))?;
    }
    match made {
        // Somebody was faster.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        made => made.map_err(failed()),
    }
}

/// In front of all others.
fn free_place(traffic: &Traffic, interface: u32, name: &str) -> Result<Place, LockError> {
    let others = traffic.filters(interface, Side::In).map_err(at("list the filters of", name))?;
    match first_priority(&others) {
        Ok(priority) => Ok(Place { priority, handle: random() }),
        Err(first) => Err(LockError::Behind {
            interface: name.to_owned(),
            kind: first.kind.clone(),
            priority: first.place.priority,
        }),
    }
}

/// The lowest one that eBPF programs can have, since filters of one priority are of one kind and protocol: among these
/// the latest comes first (`cls_bpf_change`). None may see IPv6 before, since it may let packets in.
fn first_priority(others: &[Filter]) -> Result<u16, &Filter> {
    for priority in 1..=u16::MAX {
        let mut there =
            others.iter().filter(|one| one.chain == 0 && one.place.priority == priority);
        match there.next() {
            None => return Ok(priority),
            Some(one) if one.kind == "bpf" && one.protocol == ALL_PROTOCOLS => return Ok(priority),
            Some(one) if [ALL_PROTOCOLS, IPV6].contains(&one.protocol) => return Err(one),
            Some(_) => {}
        }
    }
    Ok(u16::MAX)
}

pub(super) fn no_interfaces(source: io::Error) -> LockError {
    LockError::Files { operation: "list the interfaces of", path: netns::OWN.into(), source }
}

/// An interface may go at any time.
fn unless_gone(error: LockError) -> Result<(), LockError> {
    match error {
        LockError::Interface { source, .. } if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(())
        }
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_priority(priority: u16, protocol: i32, kind: &str) -> Filter {
        Filter {
            place: Place { priority, handle: 1 },
            protocol: protocol.try_into().expect("a protocol"),
            chain: 0,
            kind: kind.to_owned(),
            program: None,
        }
    }

    #[test]
    fn a_filter_has_the_first_place_or_none() {
        let all = libc::ETH_P_ALL;
        assert_eq!(first_priority(&[]), Ok(1));
        assert_eq!(first_priority(&[at_priority(49152, all, "u32")]), Ok(1));
        assert_eq!(first_priority(&[at_priority(1, all, "bpf")]), Ok(1));
        let others =
            [at_priority(1, libc::ETH_P_IP, "u32"), at_priority(2, libc::ETH_P_ARP, "bpf")];
        assert_eq!(first_priority(&others), Ok(3));
        for (protocol, kind) in [(all, "u32"), (libc::ETH_P_IPV6, "bpf")] {
            let first = at_priority(1, protocol, kind);
            assert_eq!(first_priority(std::slice::from_ref(&first)), Err(&first));
            // Where no packet is sent to it is not gone through.
            assert_eq!(first_priority(&[Filter { chain: 7, ..first }]), Ok(1));
        }
    }
}
