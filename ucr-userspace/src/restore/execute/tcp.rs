//! Brings TCP connections back: by repair mode what that can do, by segments made by hand what only the other end can
//! have sent. Nothing of it gets out, and nothing in: they are locked.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{self, SendFlags};

use super::super::forge::{Forger, Segment};
use super::super::plan::step::Holder;
use super::inet::device;
use super::{Restored, StepError, call};
use crate::image::{Buffers, Inet, Progress, SocketIndex, Tcp, Urgent, Window};
use crate::lock::{Connection, Lock, USUAL};
use crate::model::inet::{Endpoint, TcpState};
use crate::sys::repair::{self, Agreement, Leave, Queue};
use crate::sys::sockopt;

/// How long a segment that was made by hand is waited for: loopback hands it over at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A window that everything made by hand fits into.
const OPEN: u32 = u16::MAX as u32;

/// What a buffer is enlarged to while it is filled: twice what is put in, since the kernel counts its own structures as
/// well, and as much as the smallest takes.
fn room(bytes: usize) -> i32 {
    i32::try_from(bytes.saturating_mul(2).saturating_add(1 << 20)).unwrap_or(i32::MAX / 2)
}

impl Restored {
    /// Has the network keep out of a connection.
    pub(super) fn shut(&mut self, local: Endpoint, remote: Endpoint) -> Result<(), StepError> {
        let lock = match &mut self.lock {
            Some(lock) => lock,
            none => none.insert(Lock::prepare(USUAL)?),
        };
        let connection = Connection { local, remote };
        if self.exchange.is_in_place() {
            // What is kept of it ends when it has gone over, and not before.
            lock.join(connection)?;
        }
        // Between the kept lock and the socket nobody is there whose packets the other programs would see.
        if connection.is_over_ipv6() {
            lock.silence()?;
        }
        lock.add(connection)?;
        Ok(())
    }

    pub(super) fn repair(&mut self, index: SocketIndex) -> Result<(), StepError> {
        if self.exchange.is_in_place() {
            self.abort_if_closed(index)?;
        } else if let Some(lock) = &mut self.lock {
            lock.take_over()?;
        }
        let socket = self.saved(index)?;
        let reuse = sockopt::get(socket, libc::SO_REUSEADDR).map_err(call("getsockopt"))?;
        repair::enter(socket).map_err(call("setsockopt TCP_REPAIR"))?;
        self.connections.push((index, sockopt::as_int(&reuse).is_some_and(|value| value != 0)));
        Ok(())
    }

    /// Makes a socket in repair mode that is bound the connection that it was. It stays in repair mode: if ucr ends,
    /// however, it is closed without a word.
    pub(super) fn resume(
        &mut self,
        index: SocketIndex,
        saved: &Inet,
        tcp: &Tcp,
        remote: Endpoint,
    ) -> Result<(), StepError> {
        let mark = self.lock.as_ref().map(Lock::mark);
        let mark = mark.ok_or(StepError::Missing(Holder::Saved(index)))?;
        let local = saved.local.ok_or(StepError::Missing(Holder::Saved(index)))?;
        let socket = self.saved(index)?;
        let locked = locked(socket)?;
        let device = device(socket)?;
        let work = Work { socket, tcp, local, remote, mark, device, locked };
        if tcp.state == TcpState::SynSent { work.ask() } else { work.resume() }?;
        // Without it, `SO_REUSEADDR` would show that the socket is in repair mode.
        self.reuse(index)
    }

    /// Sets what repair mode has made the socket forget.
    pub(super) fn reuse(&self, index: SocketIndex) -> Result<(), StepError> {
        // Mostly it is the last one.
        let known = self.connections.iter().rev().find(|(other, _)| *other == index);
        let reuse = i32::from(known.is_some_and(|(_, reuse)| *reuse));
        sockopt::set(self.saved(index)?, libc::SO_REUSEADDR, &reuse.to_ne_bytes())
            .map_err(call("setsockopt SO_REUSEADDR"))
    }

    /// Lets the connections go on that processes have by now. (What is on its way is sent again, by who has sent it: nobody
    /// is asked, for if that failed half-way, or we were killed, they would have what it takes.)
    ///
    /// # Errors
    /// The kernel's.
    pub fn unlock(&mut self) -> Result<(), StepError> {
        if let Some(mut lock) = self.lock.take() {
            lock.take_over()?;
            lock.release()?;
        }
        Ok(())
    }

    /// Lets the connections go on: from here on the other ends see them again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn release(&mut self) -> Result<(), StepError> {
        if let Some(lock) = self.lock.take() {
            lock.release()?;
        }
        for (index, _) in &self.connections {
            let known = self.saved(*index)?;
            let reuse = sockopt::get(known, libc::SO_REUSEADDR).map_err(call("getsockopt"))?;
            leave_asking(known)?;
            sockopt::set(known, libc::SO_REUSEADDR, &reuse)
                .map_err(call("setsockopt SO_REUSEADDR"))?;
        }
        Ok(())
    }

    /// Has connections closed without a word.
    pub(super) fn hush(&self) {
        for (index, _) in &self.connections {
            let Ok(socket) = self.saved(*index) else { continue };
            if let Err(error) = repair::enter(socket) {
                tracing::error!(%error, "failed to close a connection without a word");
            }
        }
    }
}

/// Which buffers the kernel leaves alone (`SO_BUF_LOCK`).
fn locked(socket: BorrowedFd<'_>) -> Result<i32, StepError> {
    let locked = sockopt::get(socket, libc::SO_BUF_LOCK).map_err(call("getsockopt"))?;
    Ok(sockopt::as_int(&locked).unwrap_or_default())
}

/// Takes a socket out of repair mode. Of an established connection the kernel asks the other end for its window then.
///
/// With that it tells of ours, but nobody heeds it: the question has a number that was acknowledged long ago
/// (`tcp_validate_incoming`). What waits to be received may take less room than it did before, so a shut window would be
/// open again, the kernel would take that for said (`tcp_select_window`), and say it no more when the queue is read
/// (`tcp_cleanup_rbuf`). So there is no room at that moment, and our window is what the other end knows.
fn leave_asking(socket: BorrowedFd<'_>) -> Result<(), StepError> {
    let info = sockopt::get_at(socket, libc::SOL_TCP, libc::TCP_INFO, 1);
    let state = info.map_err(call("getsockopt TCP_INFO"))?.first().copied();
    if state.and_then(TcpState::from_raw) != Some(TcpState::Established) {
        return repair::leave(socket, Leave::Asking).map_err(call("setsockopt TCP_REPAIR"));
    }
    let size = sockopt::get(socket, libc::SO_RCVBUF).map_err(call("getsockopt SO_RCVBUF"))?;
    let half = sockopt::as_int(&size).unwrap_or_default() / 2;
    let locked = sockopt::get(socket, libc::SO_BUF_LOCK).map_err(call("getsockopt SO_BUF_LOCK"))?;
    sockopt::set(socket, libc::SO_RCVBUF, &0_i32.to_ne_bytes())
        .map_err(call("setsockopt SO_RCVBUF"))?;
    repair::leave(socket, Leave::Asking).map_err(call("setsockopt TCP_REPAIR"))?;
    sockopt::set(socket, libc::SO_RCVBUFFORCE, &half.to_ne_bytes())
        .map_err(call("setsockopt SO_RCVBUFFORCE"))?;
    sockopt::set(socket, libc::SO_BUF_LOCK, &locked).map_err(call("setsockopt SO_BUF_LOCK"))
}

/// A connection that is being brought back.
pub(super) struct Work<'a> {
    socket: BorrowedFd<'a>,
    tcp: &'a Tcp,
    local: Endpoint,
    remote: Endpoint,
    /// Of segments made by hand.
    mark: u32,
    /// The interface that it is bound to (`SO_BINDTODEVICE`), or 0.
    device: u32,
    /// Which buffers the kernel leaves alone (`SO_BUF_LOCK`).
    locked: i32,
}

impl<'a> Work<'a> {
    /// For a connection that is made by both ends: without what brings segments of the other one.
    pub(super) fn of_both(
        socket: BorrowedFd<'a>,
        tcp: &'a Tcp,
        ends: (Endpoint, Endpoint),
    ) -> Result<Self, StepError> {
        let (local, remote) = ends;
        Ok(Self { socket, tcp, local, remote, mark: 0, device: 0, locked: locked(socket)? })
    }
}

impl Work<'_> {
    /// Asks for the connection once more, with the same number.
    fn ask(&self) -> Result<(), StepError> {
        let first = self.tcp.sent.end.wrapping_sub(1);
        self.begin_with(Queue::Sent, first)?;
        repair::leave(self.socket, Leave::Silently).map_err(call("setsockopt TCP_REPAIR"))?;
        let flags = fcntl_getfl(self.socket).map_err(call("fcntl F_GETFL"))?;
        fcntl_setfl(self.socket, flags | OFlags::NONBLOCK).map_err(call("fcntl F_SETFL"))?;
        let connected = net::connect(self.socket, &core::net::SocketAddr::from(self.remote));
        fcntl_setfl(self.socket, flags).map_err(call("fcntl F_SETFL"))?;
        match connected {
            Err(Errno::INPROGRESS) | Ok(()) => {}
            Err(errno) => return Err(call("connect")(errno)),
        }
        repair::enter(self.socket).map_err(call("setsockopt TCP_REPAIR"))?;
        self.size_buffers()
    }

    fn resume(&self) -> Result<(), StepError> {
        let Self { socket, tcp, remote, .. } = *self;
        self.begin_with(Queue::Sent, tcp.sent.begin())?;
        self.begin_with(Queue::Received, tcp.received.begin())?;
        self.choose(Queue::None)?;
        net::connect(socket, &core::net::SocketAddr::from(remote)).map_err(call("connect"))?;
        self.agree()?;
        let is_filled = !tcp.received.data.is_empty() || tcp.urgent.is_some();
        let (sent, unsent) = self.parts();
        if is_filled || !tcp.sent.data.is_empty() {
            self.enlarge()?;
        }
        if is_filled {
            self.receive()?;
            self.choose(Queue::None)?;
        }
        if !sent.is_empty() || tcp.state != TcpState::Established {
            self.choose(Queue::Sent)?;
            self.write(sent, tcp.sent.begin())?;
            if matches!(tcp.state, TcpState::CloseWait | TcpState::LastAck) {
                self.forge_fin()?;
            }
            if tcp.state.has_sent_fin() && !self.is_fin_unsent() {
                self.shut_down()?;
            }
            self.choose(Queue::None)?;
        }
        if !unsent.is_empty() || self.is_fin_unsent() {
            // What is written now is sent, which the lock prevents.
            repair::leave(socket, Leave::Silently).map_err(call("setsockopt TCP_REPAIR"))?;
            let length = u32::try_from(sent.len()).unwrap_or(u32::MAX);
            self.write(unsent, tcp.sent.begin().wrapping_add(length))?;
            if self.is_fin_unsent() {
                self.shut_down()?;
            }
            repair::enter(socket).map_err(call("setsockopt TCP_REPAIR"))?;
        }
        match tcp.state {
            TcpState::FinWait2 => {
                self.open(tcp.received.end)?;
                // Our own FIN as well.
                self.forge(&self.segment(tcp.sent.end.wrapping_add(1)))?;
            }
            TcpState::Closing => self.forge_fin()?,
            _ => {}
        }
        // Last: what was made by hand has said something of windows, too.
        if let Some(window) = tcp.window {
            self.set_window(window)?;
        }
        self.size_buffers()
    }

    /// What was sent and is not acknowledged, and what never was sent.
    fn parts(&self) -> (&[u8], &[u8]) {
        let Tcp { state, sent, unsent, .. } = self.tcp;
        let unsent = unsent.saturating_sub(u32::from(state.has_sent_fin()));
        let unsent = usize::try_from(unsent).unwrap_or(usize::MAX);
        sent.data.split_at(sent.data.len().saturating_sub(unsent))
    }

    fn is_fin_unsent(&self) -> bool {
        self.tcp.state.has_sent_fin() && self.tcp.unsent > 0
    }

    fn choose(&self, queue: Queue) -> Result<(), StepError> {
        repair::choose(self.socket, queue).map_err(call("setsockopt TCP_REPAIR_QUEUE"))
    }

    fn begin_with(&self, queue: Queue, number: u32) -> Result<(), StepError> {
        self.choose(queue)?;
        repair::set_sequence(self.socket, number).map_err(call("setsockopt TCP_QUEUE_SEQ"))
    }

    fn agree(&self) -> Result<(), StepError> {
        let agreed = self.tcp.agreed;
        let all = [
            Some(Agreement::Segment(agreed.mss)),
            agreed.scale.map(|(theirs, ours)| Agreement::Scale(theirs, ours)),
            agreed.sack.then_some(Agreement::Sack),
            agreed.timestamp.map(|_| Agreement::Timestamps),
        ];
        let all: Vec<_> = all.into_iter().flatten().collect();
        repair::agree(self.socket, &all).map_err(call("setsockopt TCP_REPAIR_OPTIONS"))?;
        match agreed.timestamp {
            Some(stamp) => {
                repair::set_timestamp(self.socket, stamp).map_err(call("setsockopt TCP_TIMESTAMP"))
            }
            None => Ok(()),
        }
    }

    fn set_window(&self, window: Window) -> Result<(), StepError> {
        let Window { send_update, send, most, receive, receive_update } = window;
        repair::set_windows(self.socket, [send_update, send, most, receive, receive_update])
            .map_err(call("setsockopt TCP_REPAIR_WINDOW"))
    }

    /// Makes room for all that is put into the queues.
    pub(super) fn enlarge(&self) -> Result<(), StepError> {
        let Tcp { received, sent, buffers, .. } = self.tcp;
        let at_least = |bytes: usize, saved: u32| {
            room(bytes).max(i32::try_from(saved / 2).unwrap_or(i32::MAX / 2))
        };
        self.buffer(libc::SO_RCVBUFFORCE, at_least(received.data.len(), buffers.receive))?;
        self.buffer(libc::SO_SNDBUFFORCE, at_least(sent.data.len(), buffers.send))
    }

    /// Makes the buffers as large as they were, and has the kernel change them as it could before.
    pub(super) fn size_buffers(&self) -> Result<(), StepError> {
        let Buffers { send, receive } = self.tcp.buffers.settable();
        // The kernel doubles what it is given.
        let half = |size: u32| i32::try_from(size / 2).unwrap_or(i32::MAX / 2);
        self.buffer(libc::SO_SNDBUFFORCE, half(send))?;
        self.buffer(libc::SO_RCVBUFFORCE, half(receive))?;
        sockopt::set(self.socket, libc::SO_BUF_LOCK, &self.locked.to_ne_bytes())
            .map_err(call("setsockopt SO_BUF_LOCK"))
    }

    fn buffer(&self, name: i32, size: i32) -> Result<(), StepError> {
        sockopt::set(self.socket, name, &size.to_ne_bytes())
            .map_err(call("setsockopt SO_RCVBUFFORCE or SO_SNDBUFFORCE"))
    }

    /// Fills the receive queue. An urgent byte has to come from outside.
    fn receive(&self) -> Result<(), StepError> {
        let Tcp { received, sent, urgent, .. } = self.tcp;
        let data = received.data.as_slice();
        self.choose(Queue::Received)?;
        let Some(Urgent { number, progress }) = *urgent else { return self.fill(data) };
        let acknowledged = sent.begin();
        if progress == Progress::Announced {
            self.fill(data)?;
            let ahead = number.wrapping_sub(received.end).saturating_add(1);
            let urgent = u16::try_from(ahead).unwrap_or(u16::MAX);
            self.open(received.end)?;
            return self.forge(&Segment { urgent, ..self.segment(acknowledged) });
        }
        let at = usize::try_from(number.wrapping_sub(received.begin())).unwrap_or(usize::MAX);
        let (before, rest) = data.split_at_checked(at).unwrap_or((data, &[]));
        let (byte, behind) = rest.split_at_checked(1).unwrap_or_default();
        self.fill(before)?;
        self.choose(Queue::None)?;
        self.open(number)?;
        let segment = self.segment(acknowledged);
        self.forge(&Segment { sequence: number, urgent: 1, data: byte, ..segment })?;
        if progress == Progress::Read {
            let flags = net::RecvFlags::OOB | net::RecvFlags::DONTWAIT;
            net::recv(self.socket, &mut [0_u8; 1], flags).map_err(call("recv MSG_OOB"))?;
        }
        self.choose(Queue::Received)?;
        self.fill(behind)
    }

    /// Writes to the queue of what is sent, as from this number on.
    pub(super) fn write(&self, data: &[u8], first: u32) -> Result<(), StepError> {
        let ahead = self.tcp.sent_urgent.map(|behind| behind.wrapping_sub(first));
        let ahead = ahead.and_then(|ahead| usize::try_from(ahead).ok()?.checked_sub(1));
        let Some((before, rest)) = ahead.and_then(|at| data.split_at_checked(at)) else {
            return self.fill(data);
        };
        let Some((byte, behind)) = rest.split_at_checked(1) else { return self.fill(data) };
        self.fill(before)?;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT | SendFlags::OOB;
        net::send(self.socket, byte, flags).map_err(call("send MSG_OOB"))?;
        self.fill(behind)
    }

    /// Writes to the queue that is chosen.
    fn fill(&self, mut data: &[u8]) -> Result<(), StepError> {
        const PIECE: usize = 1 << 15;
        while !data.is_empty() {
            let piece = data.get(..PIECE).unwrap_or(data);
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let taken = net::send(self.socket, piece, flags).map_err(call("send"))?;
            data = data.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    pub(super) fn shut_down(&self) -> Result<(), StepError> {
        net::shutdown(self.socket, net::Shutdown::Write).map_err(call("shutdown"))
    }

    /// The other end's FIN, behind all that was received.
    fn forge_fin(&self) -> Result<(), StepError> {
        self.open(self.tcp.received.end)?;
        self.forge(&Segment { fin: true, ..self.segment(self.tcp.sent.begin()) })
    }

    /// Makes room in our window for what is made by hand, from this number on.
    fn open(&self, next: u32) -> Result<(), StepError> {
        match self.tcp.window {
            Some(window) => {
                let receive = window.receive.max(OPEN);
                self.set_window(Window { receive, receive_update: next, ..window })
            }
            None => Ok(()),
        }
    }

    /// A segment from the other end that acknowledges what is before a number.
    fn segment(&self, acknowledged: u32) -> Segment<'static> {
        let Tcp { received, window, agreed, .. } = self.tcp;
        let shift = agreed.scale.map_or(0, |(theirs, _)| theirs);
        let window = window.map_or(OPEN, |window| window.send >> shift);
        Segment {
            from: self.remote.unmapped(),
            to: self.local.unmapped(),
            sequence: received.end,
            acknowledged,
            fin: false,
            urgent: 0,
            data: &[],
            window: u16::try_from(window).unwrap_or(u16::MAX),
            interface: self.device,
        }
    }

    /// Sends a segment by hand, and waits until it has come: nothing else comes, and what comes counts at once.
    fn forge(&self, segment: &Segment<'_>) -> Result<(), StepError> {
        let mut forger = Forger::new(self.mark);
        let before = self.segments()?;
        forger.send_segment(segment).map_err(call("sendto of a raw socket"))?;
        let since = Instant::now();
        while self.segments()? == before {
            if since.elapsed() > PATIENCE {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(call("wait for a segment that was sent over loopback")(late));
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// How many segments have come (`tcpi_segs_in`).
    fn segments(&self) -> Result<u32, StepError> {
        told(self.socket, 140)
    }
}

/// A number in `struct tcp_info`, at this offset.
pub(super) fn told(socket: BorrowedFd<'_>, at: usize) -> Result<u32, StepError> {
    let info = sockopt::get_at(socket, libc::SOL_TCP, libc::TCP_INFO, at + 4)
        .map_err(call("getsockopt TCP_INFO"))?;
    let word = info.get(at..).and_then(<[u8]>::first_chunk).copied();
    Ok(word.map(u32::from_ne_bytes).unwrap_or_default())
}
