//! Plans executed in this process, compared with the image, and undone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use ucr::image::*;
use ucr::kernel::interrupts::HeldBack;
use ucr::model::*;
use ucr::restore::execute::{Execution, Failed, Restored, StepError, execute};
use ucr::restore::names::{Foreign, Here, survey};
use ucr::restore::plan::plan;
use ucr::restore::plan::step::Step;
use ucr::restore::verify::{Difference, Field, compare, observe};
use ucr::sys::addr;

use crate::support::*;

fn restore(image: &Image) -> Restored {
    execute(&plan(image).unwrap(), image, Execution::default()).unwrap()
}

pub(crate) fn differences(image: &Image, restored: &Restored) -> Vec<Difference> {
    compare(image, &observe(image, restored, None).unwrap(), &view())
}

pub(crate) fn open_descriptors() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let mut numbers: BTreeSet<i32> = entries
        .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().ok())
        .collect();
    // The one that read this list is closed by now; which of the numbers it was is seen by asking.
    numbers.retain(|number| {
        Path::new(&format!("/proc/self/fd/{number}")).exists()
            || fs::read_link(format!("/proc/self/fd/{number}")).is_ok()
    });
    numbers
}

pub(crate) fn files(directory: &Path) -> BTreeSet<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect()
}

fn stream(socket: BorrowedFd<'_>) -> UnixStream {
    UnixStream::from(socket.try_clone_to_owned().unwrap())
}

/// Sends through one end and receives at the other.
fn talk(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    stream(from).write_all(b"counter 42").unwrap();
    let mut heard = [0; 10];
    stream(to).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"counter 42");
}

#[test]
fn everything_comes_back_as_the_image_says() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let image = everything(directory.path());
    let restored = restore(&image);
    assert_eq!(differences(&image, &restored), []);

    for connection in &image.connections {
        let (a, b) = connection.ends().unwrap();
        let (one, other) = (restored.socket(a).unwrap(), restored.socket(b).unwrap());
        assert_eq!(addr::local(one).unwrap(), addr::peer(other).unwrap());
        assert_eq!(addr::local(other).unwrap(), addr::peer(one).unwrap());
        if image.sockets[a.get()].shutdown.is_none() {
            talk(one, other);
            talk(other, one);
        }
    }
    // The listeners answer under their real names.
    let path = directory.path().join(OsStr::from_bytes(b"listener\n\xff"));
    let late = UnixStream::connect(&path).unwrap();
    let listener =
        UnixListener::from(restored.socket(SocketIndex(0)).unwrap().try_clone_to_owned().unwrap());
    let (accepted, _) = listener.accept().unwrap();
    talk(late.as_fd(), accepted.as_fd());
    let expected: [&[u8]; 3] = [b"client", b"listener\n\xff", b"unconnected"];
    assert_eq!(files(directory.path()), expected.map(<[u8]>::to_vec).into());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o751);

    assert!(restored.undo().is_empty());
    assert_eq!(files(directory.path()), BTreeSet::new());
}

#[test]
fn datagram_sockets_come_back_as_the_image_says() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let image = datagrams(directory.path());
    let restored = restore(&image);
    assert_eq!(differences(&image, &restored), []);
    let peers: BTreeMap<_, _> = image.connections.iter().flat_map(Connection::peers).collect();
    for (&from, &to) in &peers {
        // One that has a peer hears only that one.
        let is_heard = peers.get(&to).is_none_or(|other| *other == from);
        if is_heard && image.sockets[from.get()].shutdown.is_none() {
            talk(restored.socket(from).unwrap(), restored.socket(to).unwrap());
        }
    }
    assert_eq!(files(directory.path()), BTreeSet::new());
    drop(restored);

    // A fault at any step.
    let (plan, descriptors) = (plan(&image).unwrap(), open_descriptors());
    for step in 0..=plan.steps.len() {
        let how = Execution { fail_before: Some(step), ..Execution::default() };
        let error = execute(&plan, &image, how).unwrap_err();
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(
            (files(directory.path()), open_descriptors()),
            (BTreeSet::new(), descriptors.clone())
        );
    }
}

#[test]
fn a_fault_at_any_step_leaves_nothing_behind() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("client"), "foreign").unwrap();
    fs::write(directory.path().join("gone"), "foreign too").unwrap();
    let before = files(directory.path());
    let image = everything(directory.path());
    let seen = view();
    let here = Here { boot_id: "another boot", view: &seen, somaxconn: None, in_place: None };
    let plan = plan(&image).unwrap();
    let asides = survey(&plan, &image, here, Foreign::Replace).unwrap();
    // What is gone is bound elsewhere: the file at its name is in nobody's way.
    assert_eq!(asides.len(), 1);
    let plan = plan.with_asides(asides);
    let descriptors = open_descriptors();
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let names = |view: &View| {
        let mine = view.sockets.values().map(|socket| socket.name.to_string());
        let own = ["@ucr-test\\x00\\x0a\\xff", "@ucr-test-client", "@ucr-test-pair"];
        mine.filter(|name| own.contains(&name.as_str())).collect::<Vec<_>>()
    };
    for fail_before in 0..=plan.steps.len() {
        let how = Execution { fail_before: Some(fail_before), ..Execution::default() };
        let error = execute(&plan, &image, how).unwrap_err();
        match &error.failed {
            Failed::Step { number, source: StepError::OnPurpose, .. } => {
                assert_eq!(*number, fail_before + 1);
            }
            other => panic!("{other}"),
        }
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(files(directory.path()), before, "{error}");
        assert_eq!(fs::read(directory.path().join("client")).unwrap(), b"foreign");
        assert_eq!(fs::read(directory.path().join("gone")).unwrap(), b"foreign too");
        assert_eq!(open_descriptors(), descriptors, "{error}");
        assert_eq!(names(&view()), Vec::<String>::new(), "{error}");
        let now = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        assert_eq!(now, limit);
    }
    // Nothing of the image stays at one of them: it is as it was. The other one is replaced in the end.
    let mut restored = execute(&plan, &image, Execution::default()).unwrap();
    assert_eq!(fs::read(directory.path().join("gone")).unwrap(), b"foreign too");
    let found = differences(&image, &restored);
    assert_eq!(found, []);
    restored.discard_asides().unwrap();
    assert!(fs::metadata(directory.path().join("client")).unwrap().file_type().is_socket());
    restored.make_final();
    drop(restored);
    let left = files(directory.path());
    assert!(left.iter().all(|name| !name.starts_with(b".ucr")), "{left:?}");
    assert_eq!(left.len(), 4);
}

#[test]
fn credentials_are_seen_as_saved() {
    let _alone = alone();
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let directory = tempfile::tempdir().unwrap();
    // Nobody but root may enter.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let who = |uid, gid| Some(Credentials { pid: Pid(1), uid, gid });
    let mut b = Builder::new();
    let id = FileId { device: 1, inode: 2, born: None };
    let file = SocketFile::Present { id, mode: 0o640, uid: 1003, gid: 1004 };
    let name = path_name(directory.path().join("x"), file);
    let listener = b.listener(SocketType::Stream, name.clone());
    b.get(listener).listener_credentials = who(1001, 1002);
    let (client, server) = b.accepted(SocketType::Stream, Some(listener), name.clone(), None);
    b.get(client).peer_credentials = who(1005, 1006);
    b.get(server).peer_credentials = who(1007, 1008);
    let (client, server) = b.accepted(SocketType::Stream, Some(listener), name, None);
    b.get(client).peer_credentials = who(0, 0);
    b.get(server).peer_credentials = who(1009, 0);
    let (one, other) = b.pair(SocketType::Seqpacket);
    b.get(one).peer_credentials = who(1010, 1011);
    b.get(other).peer_credentials = who(1010, 1011);
    let restored = restore(&b.0);
    assert_eq!(differences(&b.0, &restored), []);
    assert!(nix::unistd::geteuid().is_root() && nix::unistd::getegid().as_raw() == 0);
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let ids = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!((ids("Uid:").len(), ids("Gid:").len()), (1, 1), "{status}");
    assert_eq!(ids("CapEff:"), ids("CapPrm:"));
}

#[test]
fn relative_names_keep_their_bytes_and_the_longest_fits() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let before = std::env::current_dir().unwrap();
    let mut b = Builder::new();
    for name in [b"./relative//x".to_vec(), vec![b'y'; 108]] {
        let bound = Bound {
            name: UnixName::Pathname(name),
            directory: Some(directory.path().as_os_str().as_bytes().to_vec()),
            root: None,
            file: Some(present(0o600)),
        };
        let listener = b.listener(SocketType::Seqpacket, bound.clone());
        b.accepted(SocketType::Seqpacket, Some(listener), bound, None);
    }
    fs::create_dir(directory.path().join("relative")).unwrap();
    let restored = restore(&b.0);
    assert_eq!(differences(&b.0, &restored), []);
    assert_eq!(std::env::current_dir().unwrap(), before);
    let details = addr::peer(restored.socket(SocketIndex(4)).unwrap()).unwrap();
    assert_eq!(UnixName::from_sun_path(&details), UnixName::Pathname(vec![b'y'; 108]));
    drop(restored);
    assert_eq!(files(&directory.path().join("relative")), BTreeSet::new());
}

/// Setting a size locks it; a size that differs from the default and is not locked is what another
/// default at that time, or a program that took the lock off, leaves.
#[test]
fn buffers_that_were_not_locked_are_not_locked_afterwards() {
    let _alone = alone();
    let mut b = Builder::new();
    let index = b.add(socket(SocketType::Stream, Role::Unconnected));
    let size = |name| SocketOption { name, value: 100_000i32.to_ne_bytes().to_vec() };
    b.get(index).options = vec![size(libc::SO_SNDBUF), size(libc::SO_RCVBUF)];
    assert_eq!(differences(&b.0, &restore(&b.0)), []);
}

#[test]
fn one_name_passes_from_generation_to_generation() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d");
    let mut b = Builder::new();
    let now = path_name(&path, present(0o600));
    let (deleted, replaced) =
        (path_name(&path, SocketFile::Deleted), path_name(&path, SocketFile::Replaced));
    let third = b.listener(SocketType::Stream, now.clone());
    let second = b.listener(SocketType::Stream, replaced.clone());
    b.accepted(SocketType::Stream, Some(second), replaced, None);
    b.accepted(SocketType::Stream, Some(third), now, None);
    b.accepted(SocketType::Stream, None, deleted.clone(), Some(deleted));
    let restored = restore(&b.0);
    assert_eq!(differences(&b.0, &restored), []);
    assert_eq!(files(directory.path()), [b"d".to_vec()].into());
}

#[test]
fn what_differs_is_named_with_both_values() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let image = everything(directory.path());
    let restored = restore(&image);
    let observed = observe(&image, &restored, None).unwrap();
    let seen = view();
    type Spoil = fn(&mut Image, &mut View, u32);
    let spoils: &[(Field, Spoil)] = &[
        (Field::Type, |i, _, _| {
            i.sockets[0].socket_type = SocketType::Seqpacket;
        }),
        (Field::Role, |i, _, _| i.sockets[0].role = Role::Unconnected),
        (Field::Backlog, |i, _, _| i.sockets[0].role = Role::Listening { backlog: 8 }),
        (Field::Backlog, |_, v, s| {
            v.sockets.get_mut(&s).unwrap().send_queue = 8;
        }),
        (Field::Name, |i, _, _| {
            i.sockets[0].name = Some(abstract_name(b"other"));
        }),
        (Field::Shutdown, |_, v, s| {
            v.sockets.get_mut(&s).unwrap().shutdown = Shutdown(1);
        }),
        (Field::StatusFlags, |i, _, _| {
            i.sockets[0].status_flags = libc::O_NONBLOCK;
        }),
        (Field::Option(libc::SO_MARK), |i, _, _| {
            i.sockets[0].options = vec![SocketOption { name: libc::SO_MARK, value: vec![1; 4] }];
        }),
        (Field::Option(libc::SO_PASSCRED), |i, _, _| {
            i.sockets[13].options.clear();
        }),
        (Field::ListenerCredentials, |i, _, _| {
            let (pid, uid, gid) = (Pid(1), 77, 0);
            i.sockets[0].listener_credentials = Some(Credentials { pid, uid, gid });
        }),
        (Field::PeerCredentials, |i, _, _| {
            let (pid, uid, gid) = (Pid(1), 77, 0);
            i.sockets[2].peer_credentials = Some(Credentials { pid, uid, gid });
        }),
        (Field::PeerName, |i, _, _| i.sockets[3].name = None),
        (Field::Peer, |i, _, _| i.connections.swap_ends()),
        (Field::File, |i, _, _| {
            i.sockets[0].name.as_mut().unwrap().file = Some(SocketFile::Deleted);
        }),
        (Field::FileMode, |i, _, _| {
            i.sockets[0].name.as_mut().unwrap().file = Some(present(0o600));
        }),
        (Field::FileOwner, |i, _, _| {
            let id = FileId { device: 1, inode: 2, born: None };
            let file = SocketFile::Present { id, mode: 0o751, uid: 5, gid: 0 };
            i.sockets[0].name.as_mut().unwrap().file = Some(file);
        }),
        (Field::Snapshot, |_, v, s| drop(v.sockets.remove(&s))),
    ];
    for (field, spoil) in spoils {
        let (mut image, mut seen) = (image.clone(), seen.clone());
        spoil(&mut image, &mut seen, observed[0].as_ref().unwrap().details.inode);
        let found = compare(&image, &observed, &seen);
        let named = found.iter().find(|difference| difference.field == *field);
        let named = named.unwrap_or_else(|| panic!("{field} is missing in {found:?}"));
        assert_ne!(named.wanted, named.found);
        assert!(named.to_string().starts_with(&format!("socket {}: {field}: ", named.socket.0)));
    }
}

trait SwapEnds {
    fn swap_ends(&mut self);
}

impl SwapEnds for Vec<Connection> {
    /// The first two connections get each other's server.
    fn swap_ends(&mut self) {
        let (a, b) = (self[0].ends().unwrap().1, self[1].ends().unwrap().1);
        for (connection, other) in self.iter_mut().zip([b, a]) {
            if let Connection::Accepted { server, .. } = connection {
                *server = other;
            }
        }
    }
}

#[test]
fn a_number_beyond_the_limit_is_refused_with_a_hint() {
    let _alone = alone();
    let mut b = Builder::new();
    b.add(socket(SocketType::Stream, Role::Unconnected));
    b.0.descriptors[0].fd = i32::MAX - 1;
    let error = execute(&plan(&b.0).unwrap(), &b.0, Execution::default()).unwrap_err();
    match error.failed {
        Failed::Reserve(error) => assert!(error.hint().is_some(), "{error}"),
        other => panic!("{other}"),
    }
}

/// The test starts itself a second time, as a stranger who connects wherever it can.
#[test]
fn a_stranger_who_connects_first_is_noticed() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    const NAME: &[u8] = b"ucr-test-stranger";
    const STRANGER: &str = "UCR_TEST_STRANGER";
    if std::env::var_os(STRANGER).is_some() {
        let address = SocketAddr::from_abstract_name(NAME).unwrap();
        let before = std::time::Instant::now();
        while before.elapsed().as_secs() < 60 {
            drop(UnixStream::connect_addr(&address));
        }
        return;
    }
    let _alone = alone();
    let mut b = Builder::new();
    let listener = b.listener(SocketType::Stream, abstract_name(NAME));
    // Room for us behind the stranger, who on a single processor connects many times in a row.
    b.get(listener).role = Role::Listening { backlog: 4096 };
    // Several, which connect in one go.
    for _ in 0..4 {
        b.accepted(SocketType::Stream, Some(listener), abstract_name(NAME), None);
    }
    // Time for the stranger between listening and connecting.
    let mut plan = plan(&b.0).unwrap();
    let listen = plan.steps.iter().find(|step| matches!(step, Step::Listen { .. }));
    let many = vec![listen.unwrap().clone(); 1000];
    plan.steps.splice(2..2, many);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "execution::a_stranger_who_connects_first_is_noticed"]);
    let mut stranger = command.env(STRANGER, "").spawn().unwrap();
    let pid = i32::try_from(stranger.id()).unwrap();
    let before = std::time::Instant::now();
    let found = loop {
        match execute(&plan, &b.0, Execution::default()) {
            Err(error) => match error.failed {
                Failed::Step { source: StepError::Stranger(Pid(who)), .. } => break Some(who),
                // The queue is full of the stranger's connections.
                Failed::Step { source: StepError::Call { call: "connect", .. }, .. } => {}
                other => panic!("{other}"),
            },
            Ok(restored) => drop(restored),
        }
        if before.elapsed().as_secs() > 30 {
            break None;
        }
    };
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(found, Some(pid));
}

#[test]
fn a_signal_that_asks_to_end_undoes_the_restore() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let image = everything(directory.path());
    let plan = plan(&image).unwrap();
    let held = HeldBack::begin().unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
    let how = Execution { signals: Some(&held), ..Execution::default() };
    let error = execute(&plan, &image, how).unwrap_err();
    assert!(error.left.is_empty(), "{error}");
    assert!(matches!(
        error.failed,
        Failed::Step { number: 1, source: StepError::Interrupted(_), .. }
    ));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
