//! Connections over TCP that wait to be accepted, held against the image: made anew, they have other numbers, and what
//! was sent may have come further.

use std::collections::HashMap;

use super::{Check, Difference, Field, ObserveError, Shown};
use crate::image::{Image, Inet, SocketIndex, Stream, Waiting};
use crate::model::Count;
use crate::model::inet::{Endpoint, TcpState};
use crate::snapshot::memory::RawWaiting;

/// Which connections these are, by the end that connected.
pub(super) fn clients(image: &Image) -> HashMap<SocketIndex, &Waiting> {
    let inets = image.sockets.iter().filter_map(|socket| socket.inet.as_deref());
    inets.flat_map(|inet| &inet.waiting).map(|waiting| (waiting.client, waiting)).collect()
}

/// What stands at both ends of one of them: what is not acknowledged at one, and read after that, what has come at the
/// other, which is nothing less than what was acknowledged by then.
pub(super) type Content = (Waiting, Stream);

/// Compares who waits at a listener, and what they have sent. Behind them others may have come.
///
/// # Errors
/// Those of reading.
pub(super) fn compare(
    image: &Image,
    (index, listener): (SocketIndex, &Inet),
    found: &[RawWaiting],
    differences: &mut Vec<Difference>,
    read: &dyn Fn(&RawWaiting, SocketIndex) -> Result<Content, ObserveError>,
) -> Result<(), ObserveError> {
    let saved = |client: SocketIndex| {
        image.sockets.get(client.get()).and_then(|client| client.inet.as_deref())
    };
    if found.len() < listener.waiting.len() {
        let shown = |count: usize| Count(count, "connection");
        let mut check = Check { socket: index, differences };
        check.differs(Field::Waiting, shown(listener.waiting.len()), shown(found.len()));
        return Ok(());
    }
    for (waiting, raw) in listener.waiting.iter().zip(found) {
        let Some(client) = saved(waiting.client) else { continue };
        let place = |end: Option<Endpoint>| {
            Shown(end.map(|end| Endpoint { scope: 0, flow: 0, ..end.unmapped() }))
        };
        let mut check = Check { socket: index, differences: &mut *differences };
        check.equal(Field::Waiting, &place(client.local), &place(Some(raw.remote)));
        let Some(tcp) = client.tcp.as_deref() else { continue };
        let wanted = waiting.with(&tcp.sent);
        let (came, to_come) = read(raw, waiting.client)?;
        let now = came.with(&to_come);
        let shown = |stream: Option<Stream>| {
            Shown(stream.map(|Stream { data, .. }| {
                let (length, sum) = (data.len(), crc32fast::hash(&data));
                format!("{length} bytes (CRC {sum:08x})")
            }))
        };
        let mut check = Check { socket: waiting.client, differences: &mut *differences };
        check.equal(Field::Connection("what it has sent"), &shown(wanted), &shown(now));
    }
    Ok(())
}

/// Whether a state is that of the image, but that the other end may have acknowledged the FIN by now.
pub(super) fn is_same_state(wanted: TcpState, found: TcpState) -> bool {
    wanted == found || (wanted, found) == (TcpState::FinWait1, TcpState::FinWait2)
}
