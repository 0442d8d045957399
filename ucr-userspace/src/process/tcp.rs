//! A TCP connection, from the kernel's memory and `TCP_INFO`. The socket is not changed by it: repair mode would
//! outlive us, and forgets `SO_REUSEADDR` when it is left.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use super::state::{self, NotRestorable, StateError};
use super::states::Unknown;
use crate::image::{Agreed, Buffers, Progress, SocketIndex, Stream, Tcp, Urgent, Waiting, Window};
use crate::model::inet::TcpState;
use crate::snapshot::memory::{Memory, MemoryError, RawTcp};
use crate::sys::sockopt;

/// How often a connection is looked at, which moves until what was on its way is dealt with, and what passes between.
const LOOKS: u32 = 50;
/// (Nothing tells when it is: the kernel works on packets without anybody who could be asked to say so.)
const PAUSE: Duration = Duration::from_millis(1);

/// Longest `struct tcp_info` that is read: what is behind these bytes nobody asks for.
const INFO: usize = 104;

/// `TCPI_OPT_*`.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const SCALED: u8 = 4;
const MARKS: u8 = 8;
const MARKS_SEEN: u8 = 16;

/// `TCP_URG_VALID`, `TCP_URG_NOTYET`, `TCP_URG_READ`.
const URGENT_WAITS: u16 = 0x0100;
const URGENT_ANNOUNCED: u16 = 0x0200;
const URGENT_READ: u16 = 0x0400;

/// `TCP_TIMESTAMP`.
const TCP_TIMESTAMP: i32 = 24;

/// What was found.
pub(super) struct Found {
    pub(super) tcp: Tcp,
    /// What cannot be given to another socket.
    pub(super) lost: Vec<NotRestorable>,
}

/// Reads a connection.
///
/// # Errors
/// If the kernel refuses a question, or its memory makes no sense, however often one looks.
pub(super) fn read(
    socket: BorrowedFd<'_>,
    sk: u64,
    memory: &Memory,
) -> Result<Found, Unknown<StateError>> {
    let raw = settled(sk, memory)?;
    let info = sockopt::get_at(socket, libc::SOL_TCP, libc::TCP_INFO, INFO)
        .map_err(|source| state::failed("TCP_INFO", socket, source))?;
    let byte = |at: usize| info.get(at).copied().unwrap_or_default();
    let (options, scales) = (byte(5), byte(6));
    let has = |option| options & option != 0;
    let timestamp = if has(TIMESTAMPS) { Some(stamp(socket)?) } else { None };
    let lost = [
        (has(MARKS) || has(MARKS_SEEN), NotRestorable::Ecn),
        (raw.has_syn, NotRestorable::SavedSyn),
        (raw.state == TcpState::SynSent && !raw.sent.is_empty(), NotRestorable::FastOpen),
    ];
    let lost = lost.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
    let next = raw.received_end.wrapping_add(u32::from(raw.state.has_received_fin()));
    let window = Window {
        send_update: update(raw.send_update, next, raw.receive_window),
        send: raw.send_window,
        most: raw.most_window,
        receive: raw.receive_window,
        receive_update: raw.receive_update,
    };
    let tcp = Tcp {
        state: raw.state,
        received: Stream { end: raw.received_end, data: raw.received },
        sent: Stream { end: raw.sent_end, data: raw.sent },
        unsent: raw.unsent,
        agreed: Agreed {
            mss: raw.mss,
            scale: has(SCALED).then_some((scales & 0x0f, scales >> 4)),
            sack: has(SACK),
            timestamp,
        },
        window: Some(window).filter(|_| raw.state != TcpState::SynSent),
        buffers: Buffers { send: raw.buffers.0, receive: raw.buffers.1 },
        urgent: urgent(raw.urgent),
        sent_urgent: raw.sent_urgent,
    };
    Ok(Found { tcp, lost })
}

/// What came at the end of a connection that waits to be accepted: in which state that is, and the rest.
///
/// # Errors
/// If the kernel's memory makes no sense, however often one looks.
pub fn waiting(
    sk: u64,
    client: SocketIndex,
    memory: &Memory,
) -> Result<(TcpState, Waiting), MemoryError> {
    let raw = settled(sk, memory)?;
    let received = Stream { end: raw.received_end, data: raw.received };
    Ok((raw.state, Waiting { client, received, urgent: urgent(raw.urgent) }))
}

/// What a connection has sent and is not acknowledged.
///
/// # Errors
/// If the kernel's memory makes no sense, however often one looks.
pub fn sent(sk: u64, memory: &Memory) -> Result<Stream, MemoryError> {
    let raw = settled(sk, memory)?;
    Ok(Stream { end: raw.sent_end, data: raw.sent })
}

/// The number of the segment that told last of the other end's window, as it can be set: one that lies behind what we take
/// by now, since one before it was lost, cannot (`tcp_repair_set_window`). With what comes next it is told again.
fn update(send_update: u32, next: u32, window: u32) -> u32 {
    let ahead = send_update.wrapping_sub(next.wrapping_add(window));
    if ahead.cast_signed() > 0 { next } else { send_update }
}

/// `urg_data` and `urg_seq`.
fn urgent((data, number): (u16, u32)) -> Option<Urgent> {
    let progress = match data & !0xff {
        URGENT_WAITS => Progress::Waiting,
        URGENT_ANNOUNCED => Progress::Announced,
        URGENT_READ => Progress::Read,
        _ => return None,
    };
    Some(Urgent { number, progress })
}

/// The connection when nothing moves any more. What was read ahead of it may have been on the move, too, and lead nowhere.
fn settled(sk: u64, memory: &Memory) -> Result<RawTcp, MemoryError> {
    for look in 1..LOOKS {
        match memory.tcp(sk) {
            Err(error @ (MemoryError::Senseless(_) | MemoryError::Unreadable { .. })) => {
                tracing::debug!(%error, look, "a connection still moves");
            }
            result => return result,
        }
        if look > 1 {
            thread::sleep(PAUSE);
        }
        memory.look_anew();
    }
    memory.tcp(sk)
}

/// What the next segment would be stamped with.
fn stamp(socket: BorrowedFd<'_>) -> Result<u32, StateError> {
    let refused = |source| state::failed("TCP_TIMESTAMP", socket, source);
    let value = sockopt::get_at(socket, libc::SOL_TCP, TCP_TIMESTAMP, 4).map_err(refused)?;
    Ok(sockopt::as_int(&value).unwrap_or_default().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_was_told_behind_a_gap_is_told_as_if_there_were_none() {
        assert_eq!(update(1_000, 1_000, 2_048), 1_000);
        // As far as the window reaches.
        assert_eq!(update(3_048, 1_000, 2_048), 3_048);
        assert_eq!(update(3_620, 1_000, 2_048), 1_000);
        // Long ago, and around the end of all numbers.
        assert_eq!(update(u32::MAX, 5, 10), u32::MAX);
        assert_eq!(update(20, u32::MAX, 10), u32::MAX);
    }
}
