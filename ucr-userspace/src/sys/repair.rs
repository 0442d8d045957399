//! TCP's repair mode (`TCP_REPAIR`): a socket in it can be given the state of a connection, and says nothing when it
//! is closed. All of it takes `CAP_NET_ADMIN`.

use std::io;
use std::os::fd::BorrowedFd;

use super::sockopt;

/// `TCP_REPAIR_WINDOW`: not in libc.
const TCP_REPAIR_WINDOW: i32 = 29;

/// How repair mode is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The other end is asked for its window, which shows it that we are there.
    Asking,
    /// Nothing is sent.
    Silently,
}

/// Which queue is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Neither: the socket reads and writes as ever.
    None,
    /// What came.
    Received,
    /// What was written.
    Sent,
}

/// What both ends agree upon: `TCPOPT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The largest segment that the other end takes.
    Segment(u16),
    /// By how many bits the other end's windows are shifted, and ours.
    Scale(u8, u8),
    /// Selective acknowledgements.
    Sack,
    /// Time stamps.
    Timestamps,
}

fn set(socket: BorrowedFd<'_>, name: i32, value: u32) -> io::Result<()> {
    sockopt::set_at(socket, libc::SOL_TCP, name, &value.to_ne_bytes())
}

/// Puts a socket into repair mode. Its `SO_REUSEADDR` is forgotten.
///
/// # Errors
/// The kernel's: without `CAP_NET_ADMIN`, or of a listener.
pub fn enter(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, 1)
}

/// Takes a socket out of repair mode. Its `SO_REUSEADDR` is off then.
///
/// # Errors
/// The kernel's.
pub fn leave(socket: BorrowedFd<'_>, how: Leave) -> io::Result<()> {
    let mode = match how {
        Leave::Asking => 0,
        Leave::Silently => u32::MAX,
    };
    set(socket, libc::TCP_REPAIR, mode)
}

/// Chooses the queue that `send` writes to and [`set_sequence`] means.
///
/// # Errors
/// The kernel's.
pub fn choose(socket: BorrowedFd<'_>, queue: Queue) -> io::Result<()> {
    let number = match queue {
        Queue::None => 0,
        Queue::Received => 1,
        Queue::Sent => 2,
    };
    set(socket, libc::TCP_REPAIR_QUEUE, number)
}

/// The sequence number that the chosen queue begins with, of a socket that is not connected yet.
///
/// # Errors
/// The kernel's.
pub fn set_sequence(socket: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    set(socket, libc::TCP_QUEUE_SEQ, number)
}

/// The sequence number behind the chosen queue.
///
/// # Errors
/// The kernel's.
pub fn sequence(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let value = sockopt::get_at(socket, libc::SOL_TCP, libc::TCP_QUEUE_SEQ, 4)?;
    Ok(sockopt::as_int(&value).unwrap_or_default().cast_unsigned())
}

/// What both ends have agreed upon. What is not said they have not.
///
/// # Errors
/// The kernel's: of a socket that is not connected.
pub fn agree(socket: BorrowedFd<'_>, agreements: &[Agreement]) -> io::Result<()> {
    // `struct tcp_repair_opt`, of each: what, and its value.
    let words = agreements.iter().flat_map(|agreement| match *agreement {
        Agreement::Segment(size) => [2, u32::from(size)],
        Agreement::Scale(theirs, ours) => [3, u32::from(theirs) | (u32::from(ours) << 16)],
        Agreement::Sack => [4, 0],
        Agreement::Timestamps => [8, 0],
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    sockopt::set_at(socket, libc::SOL_TCP, libc::TCP_REPAIR_OPTIONS, &bytes)
}

/// What the next segment is stamped with.
///
/// # Errors
/// The kernel's.
pub fn set_timestamp(socket: BorrowedFd<'_>, value: u32) -> io::Result<()> {
    set(socket, libc::TCP_TIMESTAMP, value)
}

/// Windows, as a `struct tcp_repair_window`: last update and size of the other end's, its largest, ours, last
/// update of ours.
///
/// # Errors
/// The kernel's.
pub fn set_windows(socket: BorrowedFd<'_>, words: [u32; 5]) -> io::Result<()> {
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    sockopt::set_at(socket, libc::SOL_TCP, TCP_REPAIR_WINDOW, &bytes)
}
