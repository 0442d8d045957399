//! Socket state: read, set again, read again.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use ucr::image::{Filter, SocketOption};
use ucr::model::option_table;
use ucr::model::*;
use ucr::process::state::{self, Defaults};
use ucr::process::{filter, options};
use ucr::sys::sockopt;

fn stream() -> OwnedFd {
    UnixStream::pair().unwrap().0.into()
}

#[test]
fn a_new_socket_differs_in_nothing() {
    for socket_type in [SocketType::Stream, SocketType::Dgram, SocketType::Seqpacket] {
        let defaults = Defaults::probe(socket_type).unwrap();
        if socket_type == SocketType::Stream {
            let details = state::read(stream().as_fd(), &defaults).unwrap();
            assert_eq!(details.options, Vec::new());
            assert_eq!(details.not_restorable, Vec::new());
            assert_eq!(details.peer_name, Some(UnixName::Unnamed));
            assert_eq!(details.credentials.unwrap().uid, nix::unistd::geteuid().as_raw());
        }
    }
}

fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// As a program sets them, and what makes each differ from a new socket.
fn settings() -> Vec<(i32, Vec<u8>)> {
    let pair = |a: i64, b: i64| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
    vec![
        (libc::SO_SNDBUF, int(5000)),
        (libc::SO_RCVBUF, int(6000)),
        (libc::SO_PASSCRED, int(1)),
        (libc::SO_PASSSEC, int(1)),
        (libc::SO_PRIORITY, int(3)),
        (libc::SO_RCVLOWAT, int(17)),
        (libc::SO_RCVTIMEO, pair(3, 250_000)),
        (libc::SO_SNDTIMEO, pair(0, 10_001)),
        (libc::SO_KEEPALIVE, int(1)),
        (libc::SO_OOBINLINE, int(1)),
        (libc::SO_BROADCAST, int(1)),
        (libc::SO_DONTROUTE, int(1)),
        (libc::SO_REUSEADDR, int(1)),
        (libc::SO_LINGER, [int(1), int(5)].concat()),
        (libc::SO_TIMESTAMPING, int(0x18)),
        (libc::SO_TIMESTAMP, int(1)),
        (libc::SO_PEEK_OFF, int(0)),
    ]
}

#[test]
fn every_option_that_is_set_is_saved_and_comes_back() {
    let defaults = Defaults::probe(SocketType::Stream).unwrap();
    for (number, value) in settings() {
        let first = stream();
        sockopt::set(first.as_fd(), number, &value).unwrap();
        let saved = state::read(first.as_fd(), &defaults).unwrap().options;
        let name = option_table::name(number);
        assert!(saved.iter().any(|option| option.name == number), "{name}: {saved:?}");

        let second = stream();
        for option in &saved {
            options::set(second.as_fd(), option).unwrap();
        }
        let again = state::read(second.as_fd(), &defaults).unwrap().options;
        assert_eq!(saved.len(), again.len(), "{name}: {saved:?} {again:?}");
        for (a, b) in saved.iter().zip(&again) {
            assert_eq!(a.name, b.name);
            assert!(option_table::equal(a.name, &a.value, &b.value), "{name}: {a:?} {b:?}");
        }
    }
}

#[test]
fn a_linger_time_survives_its_being_off() {
    let defaults = Defaults::probe(SocketType::Stream).unwrap();
    let value = [int(0), int(9)].concat();
    let socket = stream();
    let option = SocketOption { name: libc::SO_LINGER, value };
    options::set(socket.as_fd(), &option).unwrap();
    assert_eq!(state::read(socket.as_fd(), &defaults).unwrap().options, [option]);
}

#[test]
fn an_option_outside_the_table_is_never_set() {
    let option = SocketOption { name: libc::SO_ATTACH_FILTER, value: vec![0; 16] };
    let error = options::set(stream().as_fd(), &option).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let short = SocketOption { name: libc::SO_SNDBUF, value: vec![1] };
    assert!(options::set(stream().as_fd(), &short).is_err());
}

#[test]
fn a_filter_is_saved_with_its_lock() {
    let defaults = Defaults::probe(SocketType::Stream).unwrap();
    let socket = stream();
    // "return all": BPF_RET | BPF_K. struct sock_fprog: length, padding, pointer.
    let program = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX }];
    let mut fprog = 1u64.to_ne_bytes().to_vec();
    fprog.extend_from_slice(&program.as_ptr().expose_provenance().to_ne_bytes());
    sockopt::set(socket.as_fd(), libc::SO_ATTACH_FILTER, &fprog).unwrap();
    sockopt::set(socket.as_fd(), libc::SO_LOCK_FILTER, &int(1)).unwrap();
    let found = state::read(socket.as_fd(), &defaults).unwrap();
    let filter = Filter { instructions: vec![(6, 0, 0, u32::MAX)], locked: true };
    assert_eq!((found.not_restorable, found.filter), (Vec::new(), Some(filter.clone())));
    // Given to another one, which then cannot be given any more.
    let other = stream();
    filter::set(other.as_fd(), &filter).unwrap();
    assert_eq!(state::read(other.as_fd(), &defaults).unwrap().filter, Some(filter.clone()));
    let (_, error) = filter::set(other.as_fd(), &filter).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

#[test]
fn a_lock_alone_is_saved_as_well() {
    let defaults = Defaults::probe(SocketType::Stream).unwrap();
    let socket = stream();
    let lock = Filter { instructions: Vec::new(), locked: true };
    filter::set(socket.as_fd(), &lock).unwrap();
    assert_eq!(state::read(socket.as_fd(), &defaults).unwrap().filter, Some(lock));
}

#[test]
fn reading_does_not_clear_a_pending_error() {
    let defaults = Defaults::probe(SocketType::Stream).unwrap();
    let (a, b) = UnixStream::pair().unwrap();
    // Closed with something unread: the other end has ECONNRESET pending.
    std::io::Write::write_all(&mut (&a), b"unread").unwrap();
    drop(b);
    state::read(a.as_fd(), &defaults).unwrap();
    let pending = sockopt::get(a.as_fd(), libc::SO_ERROR).unwrap();
    assert_eq!(sockopt::as_int(&pending), Some(libc::ECONNRESET));
}

#[test]
fn a_listener_tells_whose_credentials_its_clients_see() {
    let defaults = Defaults::probe(SocketType::Stream).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("x")).unwrap();
    let details = state::read(listener.as_fd(), &defaults).unwrap();
    assert!(details.accepting);
    assert_eq!(u32::try_from(details.credentials.unwrap().pid.0), Ok(std::process::id()));
    assert_eq!(details.peer_name, None);
}
