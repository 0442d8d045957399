//! Sends again what waited to be received.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::net::{RecvFlags, recv};

use super::execute::{Restored, StepError};
use super::outside;
use super::plan::step::{Holder, Place};
use crate::image::{Image, Message, OutOfBand, Passed, SocketIndex};
use crate::model::{Credentials, Pid};
use crate::sys::message::{self, Along};
use crate::sys::sockopt;

/// What a message costs beyond its data, at most: its head, and what is left of its pages.
const OVERHEAD: usize = 8192;

/// A send buffer as it was, put back when this is dropped.
#[derive(Debug)]
pub(super) struct Roomy<'a> {
    socket: BorrowedFd<'a>,
    before: Option<i32>,
    /// `SO_BUF_LOCK`, where there is one (since 5.14).
    lock: Option<Vec<u8>>,
}

impl<'a> Roomy<'a> {
    /// Makes room for these messages: what is sent counts until it is received, and one that does not fit
    /// whole would be split.
    pub(super) fn new(socket: BorrowedFd<'a>, messages: &[Message]) -> io::Result<Self> {
        let needed: usize = messages.iter().map(|message| message.data.len() + OVERHEAD).sum();
        let needed = i32::try_from(needed).unwrap_or(i32::MAX / 4);
        let value = sockopt::get(socket, libc::SO_SNDBUF)?;
        let before = sockopt::as_int(&value).unwrap_or(0);
        // Nobody may have a message of more than half of it.
        if needed < before / 4 {
            return Ok(Self { socket, before: None, lock: None });
        }
        let lock = sockopt::get(socket, libc::SO_BUF_LOCK).ok();
        let wanted = needed.saturating_mul(2).to_ne_bytes();
        let forced = sockopt::set(socket, libc::SO_SNDBUFFORCE, &wanted);
        forced.or_else(|_| sockopt::set(socket, libc::SO_SNDBUF, &wanted))?;
        Ok(Self { socket, before: Some(before), lock })
    }

    /// Puts it back.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn leave(mut self) -> io::Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> io::Result<()> {
        let Some(before) = self.before.take() else { return Ok(()) };
        // The kernel doubles what it is told.
        let value = (before / 2).to_ne_bytes();
        let forced = sockopt::set(self.socket, libc::SO_SNDBUFFORCE, &value);
        forced.or_else(|_| sockopt::set(self.socket, libc::SO_SNDBUF, &value))?;
        match &self.lock {
            Some(lock) => sockopt::set(self.socket, libc::SO_BUF_LOCK, lock),
            None => Ok(()),
        }
    }
}

impl Drop for Roomy<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            tracing::error!(%error, "failed to put SO_SNDBUF back");
        }
    }
}

/// Sends one message. `to` is where the receiver is, if it is not the sender's peer.
pub(super) fn send(
    from: BorrowedFd<'_>,
    sent: &Message,
    files: &[RawFd],
    credentials: Option<Credentials>,
    to: Option<&[u8]>,
) -> io::Result<()> {
    let credentials = credentials.map(|Credentials { pid, uid, gid }| (pid.0, uid, gid));
    let data: &[u8] = match sent.out_of_band {
        // Any byte: it will be gone at once.
        OutOfBand::Taken => b"!",
        OutOfBand::No | OutOfBand::Waiting => &sent.data,
    };
    let out_of_band = sent.out_of_band != OutOfBand::No;
    let along = Along { files, credentials, out_of_band, to };
    match message::send(from, data, along)? {
        taken if taken == data.len() => Ok(()),
        taken => Err(io::Error::other(format!("only {taken} of {} bytes were taken", data.len()))),
    }
}

/// Takes the out-of-band byte, so that its place is left.
pub(super) fn take_out_of_band(receiver: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [MaybeUninit::uninit()];
    recv(receiver, &mut byte, RecvFlags::OOB | RecvFlags::DONTWAIT)?;
    Ok(())
}

fn call<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> StepError {
    move |error| StepError::Call { call, source: error.into() }
}

impl Restored {
    /// Sends some messages of a socket's queue.
    pub(super) fn deliver(
        &mut self,
        image: &Image,
        from: Holder,
        to: SocketIndex,
        range: std::ops::Range<usize>,
        place: Option<&Place>,
    ) -> Result<(), StepError> {
        let queue = image.sockets.get(to.get()).map(|socket| socket.queue.as_slice());
        let messages = queue.and_then(|queue| queue.get(range));
        let messages = messages.ok_or(StepError::Missing(Holder::Saved(to)))?;
        // The kernel takes only the pid of a process that is there.
        let pids = messages.iter().filter_map(|message| Some(message.credentials?.pid));
        let pids: BTreeSet<Pid> = pids.filter(|pid| pid.0 > 0).collect();
        let held: Vec<_> = pids.into_iter().map(|pid| self.workers.hold(pid)).collect();
        let mut substituted = 0;
        let sender = self.get(from)?;
        let room = Roomy::new(sender, messages).map_err(call("make room for what waits"))?;
        let way = place.map(|place| self.way_to(Holder::Saved(to), place)).transpose()?;
        let name = way.as_ref().map(|(name, _file)| name.as_slice());
        for message in messages {
            let mut files = Vec::with_capacity(message.files.len());
            let mut taken = Vec::new();
            for file in &message.files {
                match file {
                    Passed::Socket(socket) => files.push(self.saved(*socket)?.as_raw_fd()),
                    Passed::File(file) => {
                        let file = outside::file_of(file, to).map_err(io::Error::other);
                        let file = file.map_err(call("take a file in flight"))?;
                        files.push(file.as_raw_fd());
                        taken.push(file);
                    }
                }
            }
            let mut who = message.credentials;
            let mut sent = send(sender, message, &files, who, name);
            // One that cannot be had.
            if let (Err(error), Some(who)) = (&sent, &mut who)
                && error.raw_os_error() == Some(libc::ESRCH)
            {
                who.pid = Pid(nix::unistd::getpid().as_raw());
                sent = send(sender, message, &files, Some(*who), name);
                substituted += 1;
            }
            sent.map_err(call("sendmsg"))?;
            if message.out_of_band == OutOfBand::Taken {
                take_out_of_band(self.saved(to)?).map_err(call("recv MSG_OOB"))?;
            }
        }
        drop(held);
        room.leave().map_err(call("setsockopt SO_SNDBUF"))?;
        self.substituted += substituted;
        Ok(())
    }
}
