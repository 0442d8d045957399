//! Connections over TCP that wait to be accepted. Both ends are in the image, so they are made as they were before: one
//! end connects, over this host, and sends what it had sent.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net;

use super::super::forge::Forger;
use super::super::plan::step::Holder;
use super::inet::{choose_member, device, saved_inet, unchoose};
use super::tcp::{Work, told};
use super::{Restored, StepError, call};
use crate::image::{Image, SocketIndex, Stream, Tcp};
use crate::lock::{Connection, kept};
use crate::model::inet::{Endpoint, TcpState};
use crate::sys::repair::{self, Leave};
use crate::sys::sockopt;

/// How long is waited for what this host does by itself at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long between two looks at what may take it milliseconds.
const PAUSE: Duration = Duration::from_millis(1);

impl Restored {
    /// Connects a socket to a listener of the image, where nobody accepts it.
    pub(super) fn call(
        &mut self,
        image: &Image,
        index: SocketIndex,
        listener: SocketIndex,
        member: Option<u32>,
        turn: usize,
    ) -> Result<(), StepError> {
        let missing = || StepError::Missing(Holder::Saved(index));
        let saved = saved_inet(image, index)?;
        let (local, remote) = saved.local.zip(saved.remote).ok_or_else(missing)?;
        let tcp = saved.tcp.as_deref().ok_or_else(missing)?;
        let waiting = saved_inet(image, listener)?.waiting.get(turn).ok_or_else(missing)?;
        let sent = waiting.with(&tcp.sent).ok_or_else(missing)?;
        // An urgent byte that has come is acknowledged, and no longer told of by who sent it.
        let came = waiting.urgent.map(|urgent| urgent.number.wrapping_add(1));
        let tcp = Tcp {
            sent,
            received: Stream::default(),
            sent_urgent: tcp.sent_urgent.or(came),
            ..tcp.clone()
        };
        // Of whoever was ended both ends are gone: nobody need be kept from anything.
        kept::release(&[Connection { local, remote }])?;
        let (socket, at) = (self.saved(index)?, self.saved(listener)?);
        // Whatever an image says, nobody else is called.
        let mut forger = Forger::new(self.mark);
        let own = forger.is_own(remote.unmapped().address, device(socket)?);
        if !own.map_err(call("getifaddrs"))? {
            let away = io::Error::from(io::ErrorKind::AddrNotAvailable);
            return Err(call(
                "connect to a listener of the image: its address is not of this host",
            )(away));
        }
        if let Some(member) = member {
            choose_member(at, member)?;
        }
        let made = Self::wait_at(socket, at, &tcp, (local, remote));
        if member.is_some() {
            unchoose(at)?;
        }
        made?;
        self.reuse(index)
    }

    fn wait_at(
        socket: BorrowedFd<'_>,
        listener: BorrowedFd<'_>,
        tcp: &Tcp,
        (local, remote): (Endpoint, Endpoint),
    ) -> Result<(), StepError> {
        repair::leave(socket, Leave::Silently).map_err(call("setsockopt TCP_REPAIR"))?;
        let before = waiting_at(listener)?;
        connect(socket, core::net::SocketAddr::from(remote))?;
        let work = Work::of_both(socket, tcp, (local, remote))?;
        work.enlarge()?;
        work.write(&tcp.sent.data, tcp.sent.begin())?;
        if tcp.state.has_sent_fin() {
            work.shut_down()?;
        }
        let since = Instant::now();
        while waiting_at(listener)? == before {
            if since.elapsed() > PATIENCE {
                return Err(call("wait for a connection to wait to be accepted")(late()));
            }
            thread::yield_now();
        }
        work.size_buffers()
    }

    /// Waits until each FIN is acknowledged that was, with which the other end's kernel may take its time
    /// (`TCP_DELACK_MAX`, 0.2 s): all at once, when all are sent. If one never is, whoever compares it with the image
    /// will see that.
    pub(super) fn wait_to_be_heeded(&self, image: &Image) -> Result<(), StepError> {
        let since = Instant::now();
        for (index, saved) in (0..).map(SocketIndex).zip(&image.sockets) {
            let tcp = saved.inet.as_deref().and_then(|inet| inet.tcp.as_ref());
            let was_heeded = tcp.is_some_and(|tcp| tcp.state == TcpState::FinWait2);
            // What stays as it is was not made.
            let Some(socket) = self.saved(index).ok().filter(|_| was_heeded) else { continue };
            while is_unheeded(socket)? && since.elapsed() < PATIENCE {
                // Of this state nothing tells that one could wait for: what `poll` says is the same in both.
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

/// Whether its FIN is not acknowledged yet.
fn is_unheeded(socket: BorrowedFd<'_>) -> Result<bool, StepError> {
    let info = sockopt::get_at(socket, libc::SOL_TCP, libc::TCP_INFO, 1);
    let state = info.map_err(call("getsockopt TCP_INFO"))?.first().copied();
    Ok(state.and_then(TcpState::from_raw) == Some(TcpState::FinWait1))
}

fn late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// Connects, and does not wait for ever.
fn connect(socket: BorrowedFd<'_>, remote: core::net::SocketAddr) -> Result<(), StepError> {
    let flags = fcntl_getfl(socket).map_err(call("fcntl F_GETFL"))?;
    fcntl_setfl(socket, flags | OFlags::NONBLOCK).map_err(call("fcntl F_SETFL"))?;
    let connected = net::connect(socket, &remote);
    fcntl_setfl(socket, flags).map_err(call("fcntl F_SETFL"))?;
    match connected {
        Ok(()) => return Ok(()),
        Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(call("connect")(errno)),
    }
    let socket = socket.as_fd();
    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut polled, Some(&patience)).map_err(call("poll"))? {
        0 => Err(call("connect")(late())),
        _ => match net::sockopt::socket_error(socket).map_err(call("getsockopt SO_ERROR"))? {
            Ok(()) => Ok(()),
            Err(errno) => Err(call("connect")(errno)),
        },
    }
}

/// How many connections wait at a listener: `tcpi_unacked` of one.
fn waiting_at(listener: BorrowedFd<'_>) -> Result<u32, StepError> {
    told(listener, 24)
}
