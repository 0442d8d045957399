//! What a restore takes from other processes, which here is this one, and whom it connects to.

use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use ucr::image::*;
use ucr::model::*;
use ucr::restore::execute::{Execution, execute};
use ucr::restore::names::Here;
use ucr::restore::outside::check;
use ucr::restore::plan::plan;
use ucr::restore::verify::{compare, observe};

use crate::support::*;

fn own() -> Pid {
    Pid(i32::try_from(std::process::id()).unwrap())
}

/// What is missing in a boot.
fn missing(image: &Image, boot_id: &str) -> Vec<String> {
    let seen = view();
    let here = Here { boot_id, view: &seen, somaxconn: None, in_place: None };
    check(&plan(image).unwrap(), image, here).iter().map(ToString::to_string).collect()
}

fn kept(socket: &UnixStream, pid: Pid, fd: RawFd) -> Image {
    let mut b = Builder::new();
    let index = b.add(socket_of(SocketType::Stream));
    b.get(index).cookie = rustix::net::sockopt::socket_cookie(socket).unwrap();
    let how = External::Keep { pid, fd };
    b.0.connections.push(Connection::External { socket: index, how });
    b.0
}

fn socket_of(socket_type: SocketType) -> Socket {
    socket(socket_type, Role::Connected)
}

#[test]
fn a_kept_socket_is_taken_only_if_it_is_the_very_one() {
    let _alone = alone();
    let (one, other) = UnixStream::pair().unwrap();
    let fd = one.as_raw_fd();
    let image = kept(&one, own(), fd);
    assert_eq!(missing(&image, "this boot"), [""; 0]);
    let restored = execute(&plan(&image).unwrap(), &image, Execution::default()).unwrap();
    let taken = restored.socket(SocketIndex(0)).unwrap();
    assert_eq!(
        rustix::net::sockopt::socket_cookie(taken).unwrap(),
        rustix::net::sockopt::socket_cookie(&one).unwrap()
    );
    assert_eq!(compare(&image, &observe(&image, &restored, None).unwrap(), &view()), []);
    drop(restored);
    // Nothing else is done about it, and be it a half of a datagram pair.
    let mut half = kept(&one, own(), fd);
    half.sockets[0].socket_type = SocketType::Dgram;
    half.sockets[0].peer_credentials = Some(Credentials { pid: own(), uid: 0, gid: 0 });
    assert_eq!(plan(&half).unwrap().steps.len(), 1);
    // Where every pid and cookie may be somebody else's.
    let pid = own();
    let [said] = missing(&image, "another boot").try_into().unwrap();
    assert!(said.contains("which was one of another boot"), "{said}");
    let [said] = missing(&kept(&one, pid, other.as_raw_fd()), "this boot").try_into().unwrap();
    assert!(
        said.contains(&format!("whose descriptor {} leads to something else", other.as_raw_fd()))
    );
    for (pid, fd, what) in
        [(pid, 900_000, "duplicate the descriptor"), (Pid(i32::MAX), fd, "open the process")]
    {
        let [said] = missing(&kept(&one, pid, fd), "this boot").try_into().unwrap();
        let taken = format!("socket 0 is to be taken from process {pid} (descriptor {fd}): {what}");
        assert!(said.contains(&taken), "{said}");
    }
}

#[test]
fn a_file_in_flight_is_taken_only_if_it_is_that_file() {
    let _alone = alone();
    let file = File::open("/dev/null").unwrap();
    let facts = file.metadata().unwrap();
    let with = |name: &[u8], inode: u64| {
        let mut b = Builder::new();
        let (_, receiver) = b.pair(SocketType::Stream);
        let holder = (own(), file.as_raw_fd());
        let file = ForeignFile { name: name.to_vec(), device: facts.dev(), inode, holder };
        let files = vec![Passed::File(file)];
        b.get(receiver).queue = vec![Message { data: b"x".to_vec(), files, ..Message::default() }];
        b.0
    };
    // A path may have changed.
    let image = with(b"/dev/nothing", facts.ino());
    assert_eq!(missing(&image, "this boot"), [""; 0]);
    let restored = execute(&plan(&image).unwrap(), &image, Execution::default()).unwrap();
    let receiver = restored.socket(SocketIndex(1)).unwrap();
    let received = ucr::sys::message::receive(receiver, 10, 0).unwrap();
    assert_eq!(received.data, b"x");
    let [taken] = received.files.try_into().unwrap();
    let taken = File::from(taken).metadata().unwrap();
    assert_eq!((taken.dev(), taken.ino()), (facts.dev(), facts.ino()));
    let wrong = [with(b"/dev/null", facts.ino() + 1), with(b"pipe:[1]", facts.ino())];
    for (image, name) in wrong.iter().zip(["/dev/null", "pipe:[1]"]) {
        let [said] = missing(image, "this boot").try_into().unwrap();
        assert!(
            said.starts_with(&format!("{name}, in flight to socket 1, is to be taken")),
            "{said}"
        );
        assert!(said.ends_with("leads to something else now"), "{said}");
        let error = execute(&plan(image).unwrap(), image, Execution::default()).unwrap_err();
        assert_eq!(error.left.len(), 0);
    }
    let [said] = missing(&image, "").try_into().unwrap();
    assert!(said.contains("another boot"), "{said}");
}

#[test]
fn who_is_connected_to_anew_has_to_be_there() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let listener = UnixListener::bind(at("listener")).unwrap();
    let datagrams = UnixDatagram::bind(at("datagrams")).unwrap();
    drop(UnixListener::bind(at("left")).unwrap());
    File::create(at("file")).unwrap();
    let anew = |name: &Path, socket_type| {
        let mut b = Builder::new();
        let index = b.add(socket_of(socket_type));
        let name = UnixName::Pathname(name.as_os_str().as_encoded_bytes().to_vec());
        let how = External::Reconnect { name, directory: None };
        b.0.connections.push(Connection::External { socket: index, how });
        b.0
    };
    let said = |name: &str, socket_type| missing(&anew(&at(name), socket_type), "any boot");
    assert_eq!(said("listener", SocketType::Stream), [""; 0]);
    assert_eq!(said("datagrams", SocketType::Dgram), [""; 0]);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody connected to find that out");
    for (name, socket_type, why) in [
        ("listener", SocketType::Dgram, "it is no datagram socket"),
        ("datagrams", SocketType::Stream, "a datagram socket is there"),
        ("left", SocketType::Seqpacket, "nobody answers there"),
        ("file", SocketType::Stream, "nobody answers there"),
        ("missing", SocketType::Stream, "No such file"),
    ] {
        let [text] = said(name, socket_type).try_into().unwrap();
        assert!(text.starts_with("socket 0 is to be connected anew to "), "{text}");
        assert!(text.contains(why), "{name}: {text}");
    }
    // Who has a peer listens to nobody else.
    let third = UnixDatagram::bind(at("third")).unwrap();
    datagrams.connect(at("third")).unwrap();
    let [text] = said("datagrams", SocketType::Dgram).try_into().unwrap();
    assert!(text.contains("it has another peer"), "{text}");
    drop(third);
}
