//! Images made by hand, the kernel's report through sock_diag, and what serial tests need.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ucr::image::*;
use ucr::model::*;

/// The working directory, the limits and the descriptors belong to the whole process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const PID: Pid = Pid(100);

/// Builds an image step by step.
pub(crate) struct Builder(pub(crate) Image);

pub(crate) fn process(pid: i32, parent: i32) -> Process {
    let arguments = vec![b"victim".to_vec()];
    Process { pid: Pid(pid), parent: Pid(parent), comm: b"victim".to_vec(), arguments }
}

pub(crate) fn socket(socket_type: SocketType, role: Role) -> Socket {
    Socket {
        cookie: 0,
        inode: 0,
        socket_type,
        role,
        name: None,
        status_flags: 0,
        shutdown: Shutdown::default(),
        peer_credentials: None,
        listener_credentials: None,
        groups: None,
        options: Vec::new(),
        filter: None,
        notification: None,
        error: 0,
        queue: Vec::new(),
        known_from: KnownFrom::Snapshot,
        created_at: None,
        creator: None,
        sources: Vec::new(),
        inet: None,
        netlink: None,
    }
}

pub(crate) fn abstract_name(name: &[u8]) -> Bound {
    Bound { name: UnixName::Abstract(name.to_vec()), directory: None, root: None, file: None }
}

pub(crate) fn path_name(path: impl AsRef<Path>, file: SocketFile) -> Bound {
    let name = UnixName::Pathname(path.as_ref().as_os_str().as_bytes().to_vec());
    Bound { name, directory: None, root: None, file: Some(file) }
}

pub(crate) fn present(mode: u32) -> SocketFile {
    let id = FileId { device: 1, inode: 2, born: None };
    SocketFile::Present { id, mode, uid: 0, gid: 0 }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self(Image {
            origin: Origin {
                ucr_version: "0.1.0".to_owned(),
                created_at: 1_700_000_000,
                kernel_release: "6.18.0".to_owned(),
                host: "victim".to_owned(),
                boot_id: "this boot".to_owned(),
                netns: 4_026_531_840,
                verdicts: VerdictCounts::default(),
            },
            processes: vec![process(PID.0, 1)],
            sockets: Vec::new(),
            descriptors: Vec::new(),
            connections: Vec::new(),
            interfaces: Vec::new(),
        })
    }

    /// Adds a socket with one descriptor, from 40 on.
    pub(crate) fn add(&mut self, mut socket: Socket) -> SocketIndex {
        let count = u32::try_from(self.0.sockets.len()).unwrap();
        socket.cookie = u64::from(count) + 1000;
        socket.inode = count + 5000;
        let index = SocketIndex(count);
        self.0.sockets.push(socket);
        let fd = 40 + i32::try_from(count).unwrap();
        self.0.descriptors.push(Descriptor { pid: PID, fd, socket: index, close_on_exec: false });
        index
    }

    pub(crate) fn listener(&mut self, socket_type: SocketType, bound: Bound) -> SocketIndex {
        let listening = socket(socket_type, Role::Listening { backlog: 7 });
        self.add(Socket { name: Some(bound), ..listening })
    }

    /// A connection through a listener of the image, or of none.
    pub(crate) fn accepted(
        &mut self,
        socket_type: SocketType,
        listener: Option<SocketIndex>,
        server_name: Bound,
        client_name: Option<Bound>,
    ) -> (SocketIndex, SocketIndex) {
        let order = u32::try_from(self.0.connections.len()).unwrap();
        let client = self.add(Socket { name: client_name, ..socket(socket_type, Role::Connected) });
        let server =
            self.add(Socket { name: Some(server_name), ..socket(socket_type, Role::Connected) });
        self.0.connections.push(Connection::Accepted { client, server, listener, order });
        (client, server)
    }

    pub(crate) fn pair(&mut self, socket_type: SocketType) -> (SocketIndex, SocketIndex) {
        let a = self.add(socket(socket_type, Role::Connected));
        let b = self.add(socket(socket_type, Role::Connected));
        self.0.connections.push(Connection::Pair { a, b });
        (a, b)
    }

    pub(crate) fn get(&mut self, index: SocketIndex) -> &mut Socket {
        &mut self.0.sockets[index.get()]
    }
}

/// Datagram sockets: alone, many to one by a path that is gone, a chain, each other, one to itself, a
/// pair, and what is left of two others.
pub(crate) fn datagrams(directory: &Path) -> Image {
    let mut b = Builder::new();
    let dgram = |role, name: Option<Bound>| Socket { name, ..socket(SocketType::Dgram, role) };
    let named = |name: &str| Some(abstract_name(format!("ucr-test-{name}").as_bytes()));
    let seen = Some(Credentials { pid: PID, uid: 0, gid: 0 });
    b.add(dgram(Role::Unconnected, None));
    let gone = path_name(directory.join("gone"), SocketFile::Deleted);
    let receiver = b.add(dgram(Role::Unconnected, Some(gone)));
    let mut links: Vec<(SocketIndex, SocketIndex)> = Vec::new();
    for _ in 0..3 {
        links.push((b.add(dgram(Role::Connected, None)), receiver));
    }
    let [last, middle, first] = [Role::Unconnected, Role::Connected, Role::Connected]
        .into_iter()
        .zip(["last", "middle", "first"])
        .map(|(role, name)| b.add(dgram(role, named(name))))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let [one, other, own] =
        ["one", "other", "own"].map(|name| b.add(dgram(Role::Connected, named(name))));
    // The middle one would be first, if nobody thought.
    links.extend([(middle, last), (first, middle), (one, other), (other, one), (own, own)]);
    let (half, turned) = (b.add(dgram(Role::Connected, None)), b.add(dgram(Role::Connected, None)));
    links.extend([(half, turned), (turned, last)]);
    let widow = b.add(dgram(Role::Unconnected, None));
    for index in [half, turned, widow] {
        b.get(index).peer_credentials = seen;
    }
    for (sender, receiver) in links {
        b.0.connections.push(Connection::Datagram { sender, receiver });
    }
    let (a, other) = b.pair(SocketType::Dgram);
    b.get(a).shutdown = Shutdown::SEND;
    b.get(other).name = named("half-named");
    b.0
}

/// A bit of everything, with names below `directory`.
pub(crate) fn everything(directory: &Path) -> Image {
    let mut b = Builder::new();
    let at = |name: &[u8]| path_name(directory.join(OsStr::from_bytes(name)), present(0o751));
    let stream = SocketType::Stream;
    let path = b.listener(stream, at(b"listener\n\xff"));
    let nul = b.listener(SocketType::Seqpacket, abstract_name(b"ucr-test\0\n\xff"));
    b.accepted(stream, Some(path), at(b"listener\n\xff"), None);
    b.accepted(stream, Some(path), at(b"listener\n\xff"), Some(at(b"client")));
    let by = abstract_name(b"ucr-test\0\n\xff");
    b.accepted(SocketType::Seqpacket, Some(nul), by, Some(abstract_name(b"ucr-test-client")));
    // Its listener has gone, and so has the file.
    let gone = path_name(directory.join("gone"), SocketFile::Deleted);
    b.accepted(stream, None, gone.clone(), None);
    let (client, server) = b.accepted(stream, None, gone, None);
    b.get(client).shutdown = Shutdown::SEND;
    b.get(server).shutdown = Shutdown::RECEIVE;
    let (one, other) = b.pair(SocketType::Seqpacket);
    b.get(one).name = Some(abstract_name(b"ucr-test-pair"));
    b.get(other).status_flags = libc::O_NONBLOCK;
    b.get(other).options =
        vec![SocketOption { name: libc::SO_PASSCRED, value: 1i32.to_ne_bytes().to_vec() }];
    let unconnected = b.add(socket(stream, Role::Unconnected));
    b.get(unconnected).name = Some(at(b"unconnected"));
    b.add(socket(stream, Role::Unconnected));
    b.0
}

/// What sock_diag reports about this network namespace.
pub(crate) fn view() -> View {
    ucr::snapshot::diag::unix_sockets().unwrap()
}

/// Holds what stands in a document of `docs/` between two comments against what it has to be, or writes it
/// (`UCR_WRITE_DOCS`).
pub(crate) fn is_documented(document: &str, what: &str, section: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let (begin, end) = (format!("<!-- {what}: begin -->\n"), format!("<!-- {what}: end -->"));
    let text = std::fs::read_to_string(&path).expect("read a document");
    let (before, rest) = text.split_once(&begin).expect("where the part begins");
    let (written, after) = rest.split_once(&end).expect("where the part ends");
    if std::env::var_os("UCR_WRITE_DOCS").is_some() {
        let whole = format!("{before}{begin}{section}{end}{after}");
        std::fs::write(&path, whole).expect("write a document");
    } else {
        assert_eq!(written, section, "UCR_WRITE_DOCS=1 writes {document} anew");
    }
}
