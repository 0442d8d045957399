//! The loops: what a program does with sockets, and system calls that are none of ucr's business.

use std::{
    fs::File,
    hint::black_box,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result};
use rustix::{
    io::{dup, read},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
        connect, listen, recv, send, socket_with, socketpair,
    },
    process::getppid,
};
use tempfile::TempDir;

/// Connections that may wait.
const BACKLOG: i32 = 16;

/// Everything that the loops need, made before anything is measured.
#[derive(Debug)]
pub(crate) struct Bench {
    /// On a file system in memory: a disk would be all that is measured.
    folder: TempDir,
    listener: OwnedFd,
    listens_at: SocketAddrUnix,
    abstract_name: SocketAddrUnix,
    dgram: OwnedFd,
    /// Two, so that each `connect` changes the peer.
    receivers: [(OwnedFd, SocketAddrUnix); 2],
    zero: File,
    pair: (OwnedFd, OwnedFd),
}

/// One of the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    Socketpair,
    Cycle,
    CycleByPath,
    ConnectAccept,
    DgramConnect,
    DupClose,
    SendReceive,
    Getppid,
    Read,
}

impl Loop {
    pub(crate) const ALL: [Self; 9] = [
        Self::Socketpair,
        Self::Cycle,
        Self::CycleByPath,
        Self::ConnectAccept,
        Self::DgramConnect,
        Self::DupClose,
        Self::SendReceive,
        Self::Getppid,
        Self::Read,
    ];

    /// As it is shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Socketpair => "socketpair+close",
            Self::Cycle => "bind+listen+connect+accept+close",
            Self::CycleByPath => "the same by path, unlinked",
            Self::ConnectAccept => "connect+accept+close",
            Self::DgramConnect => "dgram connect",
            Self::DupClose => "dup+close of a file",
            Self::SendReceive => "send+recv, one byte",
            Self::Getppid => "getppid",
            Self::Read => "read",
        }
    }
}

fn make(kind: SocketType) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.context("make a folder")?;
        let at = |name: &str| SocketAddrUnix::new(folder.path().join(name));
        let listens_at = at("listener").context("name a listener")?;
        let listener = make(SocketType::STREAM).context("make a listener")?;
        bind(&listener, &listens_at).context("bind a listener")?;
        listen(&listener, BACKLOG).context("listen")?;
        let receiver = |name: &str| -> Result<_> {
            let address = at(name).context("name a receiver")?;
            let socket = make(SocketType::DGRAM).context("make a receiver")?;
            bind(&socket, &address).context("bind a receiver")?;
            Ok((socket, address))
        };
        let name = format!("ucr-overhead-{}", std::process::id());
        let kind = SocketType::STREAM;
        Ok(Self {
            receivers: [receiver("one")?, receiver("other")?],
            listener,
            listens_at,
            abstract_name: SocketAddrUnix::new_abstract_name(name.as_bytes())
                .context("make an abstract name")?,
            dgram: make(SocketType::DGRAM).context("make a sender")?,
            zero: File::open("/dev/zero").context("open /dev/zero")?,
            pair: socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .context("make a pair")?,
            folder,
        })
    }

    /// Goes round so many times; nanoseconds for each.
    pub(crate) fn time(&self, which: Loop, times: u32) -> Result<f64> {
        let start = Instant::now();
        self.go_round(which, times).with_context(|| format!("go round {}", which.name()))?;
        Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(times.max(1)))
    }

    fn go_round(&self, which: Loop, times: u32) -> rustix::io::Result<()> {
        let mut byte = [0];
        let path = self.folder.path().join("cycle");
        let by_path = SocketAddrUnix::new(&path)?;
        for time in 0..times {
            match which {
                Loop::Socketpair => {
                    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
                    drop(socketpair(family, kind, SocketFlags::CLOEXEC, None)?);
                }
                Loop::Cycle => cycle(&self.abstract_name)?,
                Loop::CycleByPath => {
                    cycle(&by_path)?;
                    rustix::fs::unlink(&path)?;
                }
                Loop::ConnectAccept => meet(&self.listener, &self.listens_at)?,
                Loop::DgramConnect => {
                    let [one, other] = &self.receivers;
                    let (_, address) = if time % 2 == 0 { one } else { other };
                    connect(&self.dgram, address)?;
                }
                Loop::DupClose => drop(dup(self.zero.as_fd())?),
                Loop::SendReceive => {
                    send(&self.pair.0, &byte, SendFlags::empty())?;
                    recv(&self.pair.1, &mut byte, RecvFlags::empty())?;
                }
                Loop::Getppid => {
                    black_box(getppid());
                }
                Loop::Read => {
                    read(&self.zero, &mut byte)?;
                }
            }
        }
        Ok(())
    }
}

fn cycle(address: &SocketAddrUnix) -> rustix::io::Result<()> {
    let listener = make(SocketType::STREAM)?;
    bind(&listener, address)?;
    listen(&listener, BACKLOG)?;
    meet(&listener, address)
}

fn meet(listener: &OwnedFd, address: &SocketAddrUnix) -> rustix::io::Result<()> {
    let client = make(SocketType::STREAM)?;
    connect(&client, address)?;
    drop(accept(listener)?);
    Ok(())
}
