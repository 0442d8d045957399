//! What the event polls of a process watch (`/proc/PID/fdinfo`), and which other files of it hold sockets
//! that are no descriptors.

use std::{
    collections::HashSet,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::procfs::ProcError;
use crate::model::Pid;

/// `EPOLLONESHOT`.
const ONCE: u32 = 1 << 30;
/// What stays of a registration that has told once: `EPOLLWAKEUP`, `EPOLLONESHOT`, `EPOLLET`,
/// `EPOLLEXCLUSIVE` (`EP_PRIVATE_BITS`).
const PRIVATE: u32 = 1 << 28 | 1 << 29 | ONCE | 1 << 31;

/// That an event poll watches a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The event poll, by its number.
    pub poll: i32,
    /// The number that the file had when it was registered; it may lead elsewhere by now.
    pub fd: i32,
    /// `EPOLL*`.
    pub events: u32,
    /// What the program is told with them.
    pub data: u64,
    /// The file's inode, and the device of its file system as the kernel has it.
    pub inode: (u64, u64),
}

impl Registration {
    /// Whether it was to tell once, has done so, and waits to be told to watch again.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.events & ONCE != 0 && self.events & !PRIVATE == 0
    }
}

/// What of a process leads to sockets, beside its descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watches {
    /// In order of event poll.
    pub registrations: Vec<Registration>,
    /// Descriptors of `io_uring` instances.
    pub rings: Vec<i32>,
    /// The highest descriptor that is no socket.
    pub highest: i32,
}

/// Looks at the descriptors of a stopped process, but for those that are known to be sockets.
///
/// # Errors
/// See [`ProcError`].
pub fn watches(pid: Pid, sockets: &HashSet<i32>) -> Result<Watches, ProcError> {
    let mut watches = Watches::default();
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ProcError { path, source }
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
        let name = entry.map_err(failed(&folder))?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        numbers.extend(number.filter(|number| !sockets.contains(number)));
    }
    numbers.sort_unstable();
    watches.highest = numbers.last().copied().unwrap_or(0);
    for number in numbers {
        let path = folder.join(number.to_string());
        match fs::read_link(&path).map_err(failed(&path))?.as_os_str().as_bytes() {
            b"anon_inode:[eventpoll]" => {
                watches.registrations.extend(registrations(pid, number)?);
            }
            b"anon_inode:[io_uring]" => watches.rings.push(number),
            _ => {}
        }
    }
    Ok(watches)
}

/// What one event poll watches.
fn registrations(pid: Pid, poll: i32) -> Result<Vec<Registration>, ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/fdinfo/{poll}"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| parse(poll, line)).collect()),
        Err(source) => Err(ProcError { path, source }),
    }
}

/// As `tfd: 8 events: 19 data: 8  pos:0 ino:61 sdev:5`; the numbers behind `tfd` are hexadecimal.
fn parse(poll: i32, line: &str) -> Option<Registration> {
    let mut words = line.split([' ', ':']).filter(|word| !word.is_empty());
    let mut value = |name| {
        words.by_ref().find(|word| *word == name)?;
        words.next()
    };
    let fd = value("tfd")?.parse().ok()?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let events = u32::from_str_radix(value("events")?, 16).ok()?;
    let (data, inode) = (hex(value("data")?)?, hex(value("ino")?)?);
    Some(Registration { poll, fd, events, data, inode: (inode, hex(value("sdev")?)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_parsed() {
        let line = "tfd:       12 events: c0000019 data: ffff00000000000c  pos:0 ino:1f3a sdev:8";
        let found = parse(5, line).expect("a registration");
        let wanted = Registration {
            poll: 5,
            fd: 12,
            events: 0xc000_0019,
            data: 0xffff_0000_0000_000c,
            inode: (0x1f3a, 8),
        };
        assert_eq!(found, wanted);
        assert!(!found.is_spent());
        assert!(Registration { events: 0xc000_0000, ..found }.is_spent());
        assert_eq!(parse(5, "flags:\t02000002"), None);
    }

    #[test]
    fn an_event_poll_of_ours_is_read() {
        use std::os::fd::AsRawFd as _;

        use rustix::event::epoll;

        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll_create1");
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("socketpair");
        let (data, events) = (epoll::EventData::new_u64(77), epoll::EventFlags::IN);
        epoll::add(&poll, &one, data, events).expect("epoll_ctl");
        let own = Pid(i32::try_from(std::process::id()).expect("a pid"));
        // Other tests open and close descriptors of this process meanwhile.
        let found = registrations(own, poll.as_raw_fd()).expect("read");
        let inode = rustix::fs::fstat(&one).expect("fstat");
        let device = libc::minor(inode.st_dev).into();
        let wanted = (inode.st_ino, device);
        let found = found.iter().find(|found| found.inode == wanted);
        assert_eq!(found.map(|found| (found.data, found.events & 1)), Some((77, 1)));
    }
}
