//! `victim hold …`: one process with very many sockets, to be dumped and restored by benchmarks.
//!
//! ```text
//! hold keep SHAPE SOCKETS BYTES FOLDER     makes them, and keeps them until it is killed
//! hold outlive SHAPE SOCKETS BYTES FOLDER  the same, whoever started it may end
//! hold make SHAPE SOCKETS BYTES FOLDER     makes them and ends: the least that a restore can take
//! hold count                               tells what sockets it was started with
//! hold peak PROGRAM ARGUMENTS…             runs a program and tells how much memory it took at most, in KiB
//! ```
//!
//! `pairs` are socketpairs; `accepted` are connections with a listener of this process, `FOLDER/listener.sock`,
//! both ends of which it has; `tcp` are the same with a listener at a free port of 127.0.0.1. So many bytes wait
//! at each end. Whoever keeps them creates `FOLDER/ready` when all is there, and tells in `FOLDER/told` what it
//! has whenever it gets SIGUSR1.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
        signal::{SigSet, Signal},
        socket::{
            AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrLike,
            UnixAddr, bind, connect, getsockname, listen, recv, send, socket, socketpair,
        },
    },
};
use rustix::net::accept;

/// Runs one of them.
pub(crate) fn run(arguments: &[&str]) -> io::Result<()> {
    match arguments {
        ["keep", shape, sockets, bytes, folder] => {
            keep(&make(shape, sockets, bytes, folder)?, folder)
        }
        ["outlive", shape, sockets, bytes, folder] => {
            set_pdeathsig(None)?;
            keep(&make(shape, sockets, bytes, folder)?, folder)
        }
        ["make", shape, sockets, bytes, folder] => {
            let _made = make(shape, sockets, bytes, folder)?;
            // The kernel closes them all at once, as after a restore.
            std::process::exit(0)
        }
        ["count"] => {
            println!("{}", Found::look()?);
            Ok(())
        }
        ["peak", program, rest @ ..] => {
            let kib = peak(program.as_ref(), rest)?;
            println!("{kib}");
            Ok(())
        }
        _ => Err(io::Error::other("usage: see the head of hold.rs")),
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| io::Error::other(format!("`{text}` is no number")))
}

/// With no more system calls than it takes.
fn make(shape: &str, sockets: &str, bytes: &str, folder: &str) -> io::Result<Vec<OwnedFd>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (sockets, message) = (number(sockets)?, vec![b'u'; number(bytes)?]);
    let mut made = Vec::with_capacity(sockets + 1);
    match shape {
        "pairs" => {
            for _ in 0..sockets / 2 {
                let (a, b) =
                    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
                fill([a.as_raw_fd(), b.as_raw_fd()], &message)?;
                made.extend([a, b]);
            }
        }
        "accepted" => {
            let name = UnixAddr::new(&Path::new(folder).join("listener.sock"))?;
            let listener = listening(AddressFamily::Unix, &name)?;
            connected(AddressFamily::Unix, listener, &name, sockets / 2, &message, &mut made)?;
        }
        "tcp" => {
            let listener = listening(AddressFamily::Inet, &SockaddrIn::new(127, 0, 0, 1, 0))?;
            let name: SockaddrIn = getsockname(listener.as_raw_fd())?;
            connected(AddressFamily::Inet, listener, &name, sockets / 2, &message, &mut made)?;
        }
        _ => return Err(io::Error::other(format!("`{shape}` is no shape"))),
    }
    Ok(made)
}

fn stream(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(family, SockType::Stream, SockFlag::empty(), None)?)
}

fn listening(family: AddressFamily, name: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let listener = stream(family)?;
    bind(listener.as_raw_fd(), name)?;
    listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// Both ends of so many connections with a listener, and then the listener.
fn connected(
    family: AddressFamily,
    listener: OwnedFd,
    name: &dyn SockaddrLike,
    connections: usize,
    message: &[u8],
    made: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    for _ in 0..connections {
        let client = stream(family)?;
        connect(client.as_raw_fd(), name)?;
        let server = accept(&listener)?;
        fill([client.as_raw_fd(), server.as_raw_fd()], message)?;
        made.extend([client, server]);
    }
    made.push(listener);
    Ok(())
}

fn fill(ends: [RawFd; 2], message: &[u8]) -> io::Result<()> {
    for end in ends.into_iter().filter(|_| !message.is_empty()) {
        if send(end, message, MsgFlags::empty())? != message.len() {
            return Err(io::Error::other("a queue is full"));
        }
    }
    Ok(())
}

fn keep(_made: &[OwnedFd], folder: &str) -> io::Result<()> {
    let folder = Path::new(folder);
    let asked = SigSet::from(Signal::SIGUSR1);
    asked.thread_block()?;
    tell(folder, "ready")?;
    loop {
        asked.wait()?;
        tell(folder, "told")?;
    }
}

/// Whoever sees the file sees all of it.
fn tell(folder: &Path, name: &str) -> io::Result<()> {
    let unfinished = folder.join("unfinished");
    fs::write(&unfinished, format!("{}\n", Found::look()?))?;
    fs::rename(&unfinished, folder.join(name))
}

/// What sockets a process has.
struct Found {
    sockets: usize,
    bytes: usize,
}

impl Found {
    fn look() -> io::Result<Self> {
        let mut found = Self { sockets: 0, bytes: 0 };
        let mut buffer = vec![0; 64 * 1024];
        // All of them first: the folder that is listed is a descriptor as well.
        let entries = fs::read_dir("/proc/self/fd")?.collect::<io::Result<Vec<_>>>()?;
        for entry in entries {
            let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let fd = fd.ok_or_else(|| io::Error::other("a descriptor is no number"))?;
            match recv(fd, &mut buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
                Ok(bytes) => {
                    found.sockets += 1;
                    found.bytes += bytes;
                }
                // Nothing waits; a listener has nothing to be received, which TCP says in its own way.
                Err(Errno::EAGAIN | Errno::EINVAL | Errno::ENOTCONN) => found.sockets += 1,
                Err(Errno::ENOTSOCK | Errno::EBADF) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(found)
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.sockets, self.bytes)
    }
}

/// `ru_maxrss` of `getrusage(2)`: of the one child that there has been.
fn peak(program: &OsStr, arguments: &[&str]) -> io::Result<i64> {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{} ended with {status}", program.display())));
    }
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss())
}
