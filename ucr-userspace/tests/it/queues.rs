//! Queues, connections that wait, and ends that are left: planned, made, compared, undone, and refused
//! where an image contradicts itself.

use std::collections::BTreeSet;
use std::path::Path;

use ucr::image::*;
use ucr::model::*;
use ucr::restore::execute::Restored;
use ucr::restore::execute::{Execution, execute};
use ucr::restore::plan::{PlanError, plan};
use ucr::restore::verify::{Difference, Field, Insight, compare, look_deeper, observe};
use ucr::snapshot::{descriptors::Lister, memory::MemoryError};

use crate::execution::files;
use crate::support::*;

/// What the kernel's memory tells of what was made.
fn look(image: &Image, restored: &Restored) -> Result<Option<Vec<Difference>>, MemoryError> {
    let insight = Insight::open(image, restored, ucr::restore::verify::MANY, Lister::load)?;
    look_deeper(image, insight.as_ref())
}

fn message(text: &[u8]) -> Message {
    Message { data: text.to_vec(), ..Message::default() }
}

/// A socket that no descriptor leads to.
fn hidden(b: &mut Builder, one: Socket) -> SocketIndex {
    let index = b.add(one);
    b.0.descriptors.pop();
    index
}

/// All that can wait to be received, and all whose other end is not there.
pub(crate) fn unfinished(directory: &Path) -> Image {
    let mut b = Builder::new();
    let stream = SocketType::Stream;
    let at = |name: &str| path_name(directory.join(name), present(0o700));
    let listener = b.listener(stream, at("listener"));
    let embryo = || Socket { name: Some(at("listener")), ..socket(stream, Role::Embryo) };
    // Waiting: a client with data, one that has left something and gone, one that has gone silently.
    let client = b.add(Socket {
        name: Some(abstract_name(b"ucr-unfinished-waiting")),
        ..socket(stream, Role::Connected)
    });
    let words = Message {
        credentials: Some(Credentials { pid: Pid(1), uid: 12, gid: 34 }),
        ..message(b"first words")
    };
    let first = hidden(&mut b, Socket { queue: vec![words], ..embryo() });
    let shutdown = Shutdown::BOTH;
    // The kernel keeps credentials with all that is sent to somebody who was not accepted yet.
    let who = Some(Credentials { pid: PID, uid: 0, gid: 0 });
    let queue = vec![Message { credentials: who, ..message(b"last words") }];
    let second = hidden(&mut b, Socket { queue, shutdown, ..embryo() });
    let third = hidden(&mut b, Socket { shutdown, ..embryo() });
    let gone = |name: &str| UnixName::Abstract(name.as_bytes().to_vec());
    let clients = [
        Sender::Socket(client),
        Sender::Gone(gone("ucr-unfinished-gone")),
        Sender::Gone(UnixName::Unnamed),
    ];
    for ((order, client), embryo) in (0..).zip(clients).zip([first, second, third]) {
        b.0.connections.push(Connection::Waiting { client, embryo, listener, order });
    }
    // Left: half of a pair, a server, a client whose listener has gone too.
    let left = |b: &mut Builder, name: Option<Bound>, error: i32, was: Was| {
        let survivor = b.add(Socket {
            name,
            shutdown: Shutdown::BOTH,
            error,
            queue: vec![message(b"farewell")],
            ..socket(stream, Role::Connected)
        });
        b.0.connections.push(Connection::Ended { survivor, was });
        survivor
    };
    left(&mut b, None, libc::ECONNRESET, Was::Half(UnixName::Unnamed));
    let name = UnixName::Pathname(b"relative/client".to_vec());
    let was = Was::Client { name, listener: Some(listener) };
    left(&mut b, Some(at("listener")), 0, was);
    let name =
        UnixName::Pathname(directory.join("no/such/server").into_os_string().into_encoded_bytes());
    left(&mut b, None, 0, Was::Server { name, listener: None });
    // Out-of-band bytes, and what is in flight: a socket that nobody else has, and the receiver itself.
    let (a, other) = b.pair(stream);
    let lonely = hidden(&mut b, socket(SocketType::Dgram, Role::Unconnected));
    b.get(a).queue = vec![
        message(b"before"),
        Message { out_of_band: OutOfBand::Taken, ..Message::default() },
        Message { files: vec![Passed::Socket(lonely), Passed::Socket(a)], ..message(b"with") },
        Message { out_of_band: OutOfBand::Waiting, ..message(b"!") },
        message(b"after"),
    ];
    b.get(other).queue = vec![message(&[7; 100_000][..30_000])];
    // Datagrams, of one that is there and of one that is not, before and after it was connected.
    let dgram = |role, name: &str| Socket {
        name: Some(abstract_name(name.as_bytes())),
        ..socket(SocketType::Dgram, role)
    };
    let sender = b.add(dgram(Role::Unconnected, "ucr-unfinished-sender"));
    let receiver = b.add(dgram(Role::Connected, "ucr-unfinished-receiver"));
    let from = |sender: Sender, text: &[u8]| Message { sender: Some(sender), ..message(text) };
    b.get(receiver).queue = vec![
        from(Sender::Gone(gone("ucr-unfinished-lost")), b"gone"),
        from(Sender::Socket(sender), b""),
        from(Sender::Gone(UnixName::Unnamed), b"nobody"),
        from(Sender::Socket(sender), b"here"),
    ];
    b.0.connections.push(Connection::Datagram { sender: receiver, receiver: sender });
    let survivor = b.add(dgram(Role::Connected, "ucr-unfinished-survivor"));
    let was = Was::Server { name: gone("ucr-unfinished-server"), listener: None };
    b.0.connections.push(Connection::Ended { survivor, was });
    b.0
}

#[test]
fn what_is_unfinished_comes_back_as_the_image_says() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let image = unfinished(directory.path());
    let plan = plan(&image).unwrap();
    let restored = execute(&plan, &image, Execution::default()).unwrap();
    let observed = observe(&image, &restored, None).unwrap();
    assert_eq!(compare(&image, &observed, &view()), []);
    assert_eq!(look(&image, &restored).unwrap(), Some(Vec::new()));

    // That is not because nobody looked.
    let deeper = |spoil: fn(&mut Image)| {
        let mut image = image.clone();
        spoil(&mut image);
        let found = look(&image, &restored).unwrap().unwrap();
        found.into_iter().map(|difference| difference.field).collect::<Vec<_>>()
    };
    let words = |i: &mut Image| i.sockets[2].queue[0].data.push(b'!');
    assert_eq!(deeper(words), [Field::Message(0)]);
    let more = |i: &mut Image| i.sockets[3].queue.clear();
    assert_eq!(deeper(more), [Field::Queue]);
    assert_eq!(deeper(|i| i.sockets[5].error = 0), [Field::Error]);
    let another = |i: &mut Image| i.sockets[8].queue[2].files.reverse();
    assert_eq!(deeper(another), [Field::Message(2)]);
    let stranger =
        |i: &mut Image| i.sockets[12].queue[0].sender = Some(Sender::Gone(UnixName::Unnamed));
    assert_eq!(deeper(stranger), [Field::Message(0)]);
    let waiting = |i: &mut Image| i.connections.push(i.connections[2].clone());
    assert_eq!(deeper(waiting), [Field::Waiting]);
    assert!(restored.undo().is_empty());
    assert_eq!(files(directory.path()), BTreeSet::new());
}

#[test]
fn a_fault_at_any_step_leaves_nothing_of_what_is_unfinished() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let image = unfinished(directory.path());
    let plan = plan(&image).unwrap();
    for step in 0..=plan.steps.len() {
        let how = Execution { fail_before: Some(step), ..Execution::default() };
        let error = execute(&plan, &image, how).unwrap_err();
        assert!(error.left.is_empty(), "{error}");
        assert_eq!(files(directory.path()), BTreeSet::new(), "{error}");
        let left = view()
            .sockets
            .into_values()
            .find(|socket| socket.name.as_bytes().starts_with(b"ucr-unfinished-"));
        assert_eq!(left, None, "{error}");
    }
}

#[test]
fn a_pid_that_nobody_can_have_is_counted() {
    let _alone = alone();
    let mut b = Builder::new();
    let (a, _) = b.pair(SocketType::Stream);
    let who = |pid| Some(Credentials { pid: Pid(pid), uid: 0, gid: 0 });
    b.get(a).queue = vec![
        Message { credentials: who(i32::MAX), ..message(b"beyond pid_max") },
        Message { credentials: who(1), ..message(b"init") },
    ];
    let restored = execute(&plan(&b.0).unwrap(), &b.0, Execution::default()).unwrap();
    assert_eq!(restored.substituted(), 1);
    assert_eq!(look(&b.0, &restored).unwrap(), Some(Vec::new()));
}

#[test]
fn what_is_unfinished_in_steps() {
    let plan = plan(&unfinished(Path::new("/run/ucr"))).unwrap();
    insta::assert_snapshot!(plan.to_string());
}

#[test]
fn what_cannot_be_sent_again_is_refused() {
    let mut b = Builder::new();
    let receiver = b.add(socket(SocketType::Dgram, Role::Unconnected));
    let sender = Some(Sender::Gone(UnixName::Unnamed));
    b.get(receiver).queue = vec![Message { sender, ..message(b"from nowhere") }];
    assert_eq!(plan(&b.0), Err(PlanError::NamelessReceiver { socket: receiver }));

    let mut b = Builder::new();
    let name = abstract_name(b"ucr-unfinished-same");
    let bound = Socket { name: Some(name.clone()), ..socket(SocketType::Dgram, Role::Unconnected) };
    let receiver = b.add(bound);
    let sender = Some(Sender::Gone(name.name.clone()));
    b.get(receiver).queue = vec![Message { sender, ..message(b"from its namesake") }];
    assert_eq!(plan(&b.0), Err(PlanError::NameReused { name: name.name }));
}

#[test]
fn contradictions_of_what_is_unfinished_are_found() {
    type Spoil = fn(&mut Image);
    let wrong: &[(&str, Spoil)] = &[
        ("a descriptor leads to it, and it was not accepted yet", |i| {
            i.descriptors[0].socket = SocketIndex(2);
        }),
        ("waits at a socket that is not connected", |i| i.sockets[0].queue = vec![message(b"x")]),
        ("has a sender and is no datagram", |i| {
            i.sockets[2].queue[0].sender = Some(Sender::Gone(UnixName::Unnamed));
        }),
        ("or is one and has none", |i| i.sockets[12].queue[0].sender = None),
        ("comes from no datagram socket", |i| {
            i.sockets[12].queue[0].sender = Some(Sender::Socket(SocketIndex(1)));
        }),
        ("has no data, which a stream cannot carry", |i| i.sockets[2].queue[0].data.clear()),
        ("is a second out-of-band byte", |i| {
            let second = i.sockets[8].queue[3].clone();
            i.sockets[8].queue.push(second);
        }),
        ("another length than one byte", |i| i.sockets[8].queue[3].data.push(1)),
        ("out of band, which only streams have", |i| {
            i.sockets[12].queue[0].out_of_band = OutOfBand::Waiting;
        }),
        ("more descriptors than one can have", |i| {
            i.sockets[8].queue[2].files = vec![Passed::Socket(SocketIndex(8)); 254];
        }),
        ("names socket 999", |i| {
            i.sockets[8].queue[2].files = vec![Passed::Socket(SocketIndex(999))];
        }),
        ("no descriptor leads to it", |i| i.sockets[8].queue[2].files.clear()),
        ("is not possible", |i| {
            let name = UnixName::Abstract(vec![b'x'; 108]);
            i.sockets[12].queue[0].sender = Some(Sender::Gone(name));
        }),
        ("user or group id", |i| {
            let who = Credentials { pid: Pid(1), uid: u32::MAX, gid: 0 };
            i.sockets[2].queue[0].credentials = Some(who);
        }),
        ("does not listen", |i| {
            i.connections[0] = Connection::Waiting {
                client: Sender::Socket(SocketIndex(1)),
                embryo: SocketIndex(2),
                listener: SocketIndex(5),
                order: 0,
            };
        }),
        ("but not connected", |i| i.sockets[1].role = Role::Unconnected),
        ("pid 0 cannot have descriptor -1", |i| {
            let how = External::Keep { pid: Pid(0), fd: -1 };
            i.connections[3] = Connection::External { socket: SocketIndex(5), how };
        }),
        ("without a name", |i| {
            let how = External::Reconnect { name: UnixName::Unnamed, directory: None };
            i.connections[3] = Connection::External { socket: SocketIndex(5), how };
        }),
        ("error number 4096", |i| i.sockets[5].error = 4096),
        ("signal 65", |i| {
            i.sockets[5].notification = Some(Notification { owner: Owner::Nobody, signal: 65 });
        }),
        ("groups, or one of them", |i| i.sockets[5].groups = Some(vec![u32::MAX])),
    ];
    for (said, spoil) in wrong {
        let mut image = unfinished(Path::new("/run/ucr"));
        spoil(&mut image);
        match encode(&image) {
            Err(EncodeError::Invalid(found)) => {
                let found = found.to_string();
                assert!(found.contains(said), "{said:?} expected, found: {found}");
            }
            other => panic!("{said}: {other:?}"),
        }
    }
}
