//! The `SOL_SOCKET` options that are saved and restored, as a table: how each is set and compared.
//! Pure; `options` does the reading and setting.
//!
//! Only what can be read and set again without harm on a unix socket is here. `SO_ERROR` is not:
//! reading it clears it. What the kernel holds for a socket and cannot be given again is in
//! [`REPORTED`].

/// How a value is set so that reading gives the same bytes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// As it was read.
    Plain,
    /// The kernel doubles what is set (`sk_setsockopt`). Without `CAP_NET_ADMIN` the forced
    /// variant is refused and the plain one is limited by a sysctl.
    Halved {
        /// `SO_SNDBUFFORCE` or `SO_RCVBUFFORCE`.
        forced: i32,
    },
    /// `struct linger`: while it is off, the kernel ignores the time, so it is first set when on.
    Linger,
    /// Only the first `int` is set: the kernel reads a `struct so_timestamping` whose second member
    /// (the index of a clock) means nothing for unix sockets.
    FirstInt,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    /// Byte by byte.
    Exact,
    /// `struct timeval`: the kernel rounds up to its tick, so that a value which was read and set
    /// may come back one tick (at most 10 ms) longer.
    Time,
}

/// One option of the table.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// `SO_*` number.
    pub number: i32,
    /// `SO_*` name.
    pub name: &'static str,
    /// How it is set.
    pub set: Set,
    compare: Compare,
}

const fn plain(number: i32, name: &'static str) -> Known {
    Known { number, name, set: Set::Plain, compare: Compare::Exact }
}

// Not in libc.
const SO_PASSPIDFD: i32 = 76;
const SO_RCVPRIORITY: i32 = 82;
const SO_PASSRIGHTS: i32 = 83;
const SO_RCVMARK: i32 = 75;

/// In the order in which they are set: `SO_BUF_LOCK` behind the buffer sizes, which set it;
/// `SO_TIMESTAMPING` before the other time stamps, because it resets the bit that tells old from
/// new; `SO_PEEK_OFF` last.
pub const TABLE: &[Known] = &[
    Known {
        number: libc::SO_SNDBUF,
        name: "SO_SNDBUF",
        set: Set::Halved { forced: libc::SO_SNDBUFFORCE },
        compare: Compare::Exact,
    },
    Known {
        number: libc::SO_RCVBUF,
        name: "SO_RCVBUF",
        set: Set::Halved { forced: libc::SO_RCVBUFFORCE },
        compare: Compare::Exact,
    },
    plain(libc::SO_BUF_LOCK, "SO_BUF_LOCK"),
    plain(libc::SO_DEBUG, "SO_DEBUG"),
    plain(libc::SO_REUSEADDR, "SO_REUSEADDR"),
    plain(libc::SO_REUSEPORT, "SO_REUSEPORT"),
    plain(libc::SO_DONTROUTE, "SO_DONTROUTE"),
    plain(libc::SO_BROADCAST, "SO_BROADCAST"),
    plain(libc::SO_KEEPALIVE, "SO_KEEPALIVE"),
    plain(libc::SO_OOBINLINE, "SO_OOBINLINE"),
    plain(libc::SO_NO_CHECK, "SO_NO_CHECK"),
    plain(libc::SO_PRIORITY, "SO_PRIORITY"),
    plain(libc::SO_MARK, "SO_MARK"),
    Known { number: libc::SO_LINGER, name: "SO_LINGER", set: Set::Linger, compare: Compare::Exact },
    plain(libc::SO_PASSCRED, "SO_PASSCRED"),
    plain(libc::SO_PASSSEC, "SO_PASSSEC"),
    plain(SO_PASSPIDFD, "SO_PASSPIDFD"),
    plain(SO_PASSRIGHTS, "SO_PASSRIGHTS"),
    plain(libc::SO_RCVLOWAT, "SO_RCVLOWAT"),
    Known {
        number: libc::SO_RCVTIMEO,
        name: "SO_RCVTIMEO",
        set: Set::Plain,
        compare: Compare::Time,
    },
    Known {
        number: libc::SO_SNDTIMEO,
        name: "SO_SNDTIMEO",
        set: Set::Plain,
        compare: Compare::Time,
    },
    Known {
        number: libc::SO_TIMESTAMPING,
        name: "SO_TIMESTAMPING",
        set: Set::FirstInt,
        compare: Compare::Exact,
    },
    Known {
        number: SO_TIMESTAMPING_NEW,
        name: "SO_TIMESTAMPING_NEW",
        set: Set::FirstInt,
        compare: Compare::Exact,
    },
    plain(libc::SO_TIMESTAMP, "SO_TIMESTAMP"),
    plain(libc::SO_TIMESTAMPNS, "SO_TIMESTAMPNS"),
    plain(SO_TIMESTAMP_NEW, "SO_TIMESTAMP_NEW"),
    plain(SO_TIMESTAMPNS_NEW, "SO_TIMESTAMPNS_NEW"),
    plain(libc::SO_RXQ_OVFL, "SO_RXQ_OVFL"),
    plain(libc::SO_SELECT_ERR_QUEUE, "SO_SELECT_ERR_QUEUE"),
    plain(libc::SO_BUSY_POLL, "SO_BUSY_POLL"),
    plain(libc::SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE"),
    plain(SO_RCVMARK, "SO_RCVMARK"),
    plain(SO_RCVPRIORITY, "SO_RCVPRIORITY"),
    plain(libc::SO_INCOMING_CPU, "SO_INCOMING_CPU"),
    plain(libc::SO_WIFI_STATUS, "SO_WIFI_STATUS"),
    plain(libc::SO_NOFCS, "SO_NOFCS"),
    plain(libc::SO_ZEROCOPY, "SO_ZEROCOPY"),
    plain(libc::SO_TXTIME, "SO_TXTIME"),
    plain(SO_BINDTOIFINDEX, "SO_BINDTOIFINDEX"),
    plain(SO_PREFER_BUSY_POLL, "SO_PREFER_BUSY_POLL"),
    plain(SO_TXREHASH, "SO_TXREHASH"),
    plain(libc::SO_PEEK_OFF, "SO_PEEK_OFF"),
];

pub(crate) const SO_TIMESTAMP_NEW: i32 = 63;
pub(crate) const SO_TIMESTAMPNS_NEW: i32 = 64;
pub(crate) const SO_TIMESTAMPING_NEW: i32 = 65;

/// The interface that a socket is bound to, by its index. Not in libc.
pub const SO_BINDTOIFINDEX: i32 = 62;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_TXREHASH: i32 = 74;

/// Options that are read to be reported only: with a value other than a new socket's, the socket
/// cannot be restored faithfully.
pub const REPORTED: &[(i32, &str)] = &[(SO_RESERVE_MEM, "SO_RESERVE_MEM")];

const SO_RESERVE_MEM: i32 = 73;

/// What a connection takes over from its listener (`unix_sock_inherit_flags`).
pub const INHERITED: [i32; 4] = [libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD, SO_PASSRIGHTS];

/// The entry for an option number.
#[must_use]
pub fn known(number: i32) -> Option<&'static Known> {
    TABLE.iter().find(|known| known.number == number)
}

/// Where an option stands in the order in which they are set.
#[must_use]
pub fn rank(number: i32) -> usize {
    TABLE.iter().position(|known| known.number == number).unwrap_or(TABLE.len())
}

/// The option's name, or its number if it is not in the table.
#[must_use]
pub fn name(number: i32) -> String {
    known(number).map_or_else(|| format!("option {number}"), |known| known.name.to_owned())
}

/// Whether two values of one option mean the same.
#[must_use]
pub fn equal(number: i32, a: &[u8], b: &[u8]) -> bool {
    let compare = known(number).map_or(Compare::Exact, |known| known.compare);
    match (compare, microseconds(a), microseconds(b)) {
        (Compare::Time, Some(a), Some(b)) => {
            // 0 is "forever" and next to nothing.
            a == b || (a != 0 && b != 0 && a.abs_diff(b) <= 10_000)
        }
        _ => a == b,
    }
}

/// `long` of this architecture.
type Long = isize;

/// `struct timeval` of this architecture: two `long`s.
fn microseconds(value: &[u8]) -> Option<i128> {
    let (seconds, rest) = value.split_first_chunk()?;
    let (micros, []) = rest.split_first_chunk()? else {
        return None;
    };
    let (seconds, micros) = (Long::from_ne_bytes(*seconds), Long::from_ne_bytes(*micros));
    Some(seconds as i128 * 1_000_000 + micros as i128)
}
