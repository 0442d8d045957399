//! The list of all `SOL_SOCKET` options: `docs/OPTIONS.md` says what it says, and the running kernel
//! takes nothing that it does not have.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, socket_with};
use ucr::model::SocketType;
use ucr::model::option_list::{Kept, LIST, listed};
use ucr::model::option_table::{self, Set, TABLE};
use ucr::process::options;
use ucr::process::state::{self, Defaults};
use ucr::sys::sockopt;

use crate::support::is_documented;

fn new(socket_type: SocketType) -> OwnedFd {
    let kind = match socket_type {
        SocketType::Stream => rustix::net::SocketType::STREAM,
        SocketType::Dgram => rustix::net::SocketType::DGRAM,
        SocketType::Seqpacket => rustix::net::SocketType::SEQPACKET,
    };
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

fn set_with(number: i32) -> &'static str {
    match option_table::known(number).map(|known| known.set) {
        Some(Set::Plain) => "`setsockopt`, as it was read",
        Some(Set::Halved { .. }) => "`setsockopt`, half of it, beyond the limit if it must be",
        Some(Set::Linger) => "`setsockopt`, first switched on for the time",
        Some(Set::FirstInt) => "`setsockopt`, its first `int`",
        None => "-",
    }
}

fn section() -> String {
    let mut text = "\n| number | option | what it is | read with | set with | in an image |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for listed in LIST {
        let another;
        let (read, set, kept) = match listed.kept {
            Kept::Saved => ("`getsockopt`", set_with(listed.number), "yes"),
            Kept::Filter if listed.number == libc::SO_LOCK_FILTER => {
                ("`getsockopt`", "`setsockopt`, last of all", "yes, as the filter's lock")
            }
            Kept::Filter => ("`SO_GET_FILTER`", "`setsockopt`, after all else", "yes"),
            Kept::Another(name) => {
                another = format!("as {name}");
                ("-", "-", another.as_str())
            }
            Kept::Nothing => ("-", "-", "no: nothing is left of it"),
            Kept::Refused => ("-", "-", "no: a dump is refused, and says so"),
            Kept::Untold => ("-", "-", "no: the kernel tells nobody"),
            Kept::ReadOnly => ("`getsockopt`", "-", "no option: it can only be read"),
            Kept::NotUnix => ("-", "-", "no: a unix socket has no such state"),
            Kept::NoOption => ("-", "-", "no: it is no option"),
        };
        let (number, name, what) = (listed.number, listed.name, listed.what);
        let row = format!("| {number} | {name} | {what} | {read} | {set} | {kept} |\n");
        text += &row;
    }
    text + "\n"
}

#[test]
fn the_document_says_what_the_list_has() {
    is_documented("OPTIONS.md", "options", &section());
}

#[test]
fn list_and_table_agree() {
    assert!(LIST.is_sorted_by_key(|listed| listed.number));
    for known in TABLE {
        let listed = listed(known.number).unwrap_or_else(|| panic!("{} is not listed", known.name));
        assert_eq!((listed.name, listed.kept), (known.name, Kept::Saved));
    }
    for listed in LIST.iter().filter(|listed| listed.kept == Kept::Saved) {
        assert!(option_table::known(listed.number).is_some(), "{} is not set", listed.name);
    }
    for (number, name) in option_table::REPORTED {
        assert_eq!(listed(*number).map(|l| (l.name, l.kept)), Some((*name, Kept::Refused)));
    }
}

/// Values of every shape that an option has.
fn values() -> Vec<Vec<u8>> {
    let int = |value: i32| value.to_ne_bytes().to_vec();
    let long = |value: i64| value.to_ne_bytes().to_vec();
    vec![
        int(1),
        int(0),
        // Beyond the limits on buffers, and no power of two.
        int(5_000_001),
        // `struct linger`, `struct sock_txtime`.
        [int(1), int(7)].concat(),
        [int(0), int(0)].concat(),
        // `struct timeval`.
        [long(2), long(40_000)].concat(),
        // A device's name.
        b"lo\0".to_vec(),
        vec![0; 64],
    ]
}

/// What setting the option has done is in what is saved, and comes back on another socket.
fn comes_back(socket_type: SocketType, changed: BorrowedFd<'_>, defaults: &Defaults, what: &str) {
    let saved = state::read(changed, defaults).unwrap();
    assert_eq!(saved.not_restorable, [], "{what}");
    let other = new(socket_type);
    for option in &saved.options {
        options::set(other.as_fd(), option).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let again = state::read(other.as_fd(), defaults).unwrap();
    let without_lock = |options: Vec<ucr::image::SocketOption>| {
        // Setting a size locks it; the plan takes that back.
        options.into_iter().filter(|option| option.name != libc::SO_BUF_LOCK).collect::<Vec<_>>()
    };
    let (saved, again) = (without_lock(saved.options), without_lock(again.options));
    assert_eq!(saved.len(), again.len(), "{what}: {saved:?} {again:?}");
    for (one, other) in saved.iter().zip(&again) {
        let same = option_table::equal(one.name, &one.value, &other.value);
        assert!(one.name == other.name && same, "{what}: {one:?} {other:?}");
    }
}

#[test]
fn whatever_this_kernel_takes_is_listed() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let mut accepted = 0;
    for socket_type in [SocketType::Stream, SocketType::Dgram, SocketType::Seqpacket] {
        let defaults = Defaults::probe(socket_type).unwrap();
        for number in 1..=255 {
            let known = listed(number);
            let name = known.map_or("not listed", |known| known.name);
            if let Ok(value) = sockopt::get(new(socket_type).as_fd(), number) {
                let fits = known.is_some_and(|known| {
                    !matches!(known.kept, Kept::NoOption | Kept::Untold | Kept::Another(_))
                        || matches!(name, "SO_BINDTODEVICE")
                        || name.ends_with("TIMEO_NEW")
                });
                assert!(fits, "{socket_type}: option {number} ({name}) can be read: {value:?}");
            }
            for value in values() {
                let socket = new(socket_type);
                if sockopt::set(socket.as_fd(), number, &value).is_err() {
                    continue;
                }
                accepted += 1;
                let what = format!("{socket_type}: option {number} ({name}) takes {value:?}");
                match known.map(|known| known.kept) {
                    Some(Kept::Saved | Kept::Another(_) | Kept::Nothing | Kept::Untold) => {
                        comes_back(socket_type, socket.as_fd(), &defaults, &what);
                    }
                    Some(Kept::Filter) => {
                        assert!(state::read(socket.as_fd(), &defaults).is_ok(), "{what}");
                    }
                    Some(kept) => panic!("{what}, but it is listed as {kept:?}"),
                    None => panic!("{what}, and it is not listed"),
                }
            }
        }
    }
    // Or nothing was tried at all.
    assert!(accepted > 100, "{accepted}");
}
