//! Every `SOL_SOCKET` number that Linux has up to 6.18, and what becomes of it in a dump and a
//! restore. `docs/OPTIONS.md` is this list, and a test holds it against the running kernel.

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It stands in [`super::option_table::TABLE`].
    Saved,
    /// It is part of a filter, which is saved as such.
    Filter,
    /// Another way of setting an option that is saved under this name.
    Another(&'static str),
    /// Setting it does something once, or nothing at all: nothing is left that could be saved.
    Nothing,
    /// What it sets is refused by name when the socket is dumped.
    Refused,
    /// It can be set, and the kernel tells nobody what it was set to.
    Untold,
    /// It can only be read.
    ReadOnly,
    /// Unix sockets cannot be given it: the kernel refuses, or keeps it for other families.
    NotUnix,
    /// The number is that of a control message, or of nothing that was ever built.
    NoOption,
}

/// One number.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// `SO_*` number.
    pub number: i32,
    /// `SO_*` name.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// What becomes of it.
    pub kept: Kept,
}

const fn one(number: i32, name: &'static str, what: &'static str, kept: Kept) -> Listed {
    Listed { number, name, what, kept }
}

use Kept::{Another, Filter, NoOption, NotUnix, Nothing, ReadOnly, Refused, Saved, Untold};

/// In the order of their numbers (`include/uapi/asm-generic/socket.h`).
pub const LIST: &[Listed] = &[
    one(1, "SO_DEBUG", "debugging", Saved),
    one(2, "SO_REUSEADDR", "a flag that only other families heed", Saved),
    one(3, "SO_TYPE", "the socket's type, an image field of its own", ReadOnly),
    one(4, "SO_ERROR", "the pending error; reading it takes it away", ReadOnly),
    one(5, "SO_DONTROUTE", "a flag that only other families heed", Saved),
    one(6, "SO_BROADCAST", "a flag that only other families heed", Saved),
    one(7, "SO_SNDBUF", "size of the send buffer", Saved),
    one(8, "SO_RCVBUF", "size of the receive buffer", Saved),
    one(9, "SO_KEEPALIVE", "a flag that only other families heed", Saved),
    one(10, "SO_OOBINLINE", "out-of-band bytes come with the others", Saved),
    one(11, "SO_NO_CHECK", "a flag that only other families heed", Saved),
    one(12, "SO_PRIORITY", "priority of what is sent", Saved),
    one(13, "SO_LINGER", "how long close waits", Saved),
    one(14, "SO_BSDCOMPAT", "nothing since Linux 2.4", Nothing),
    one(15, "SO_REUSEPORT", "a flag; since 6.13 the kernel refuses it to unix sockets", Saved),
    one(16, "SO_PASSCRED", "credentials come with each message", Saved),
    one(17, "SO_PEERCRED", "the peer's credentials, an image field of its own", ReadOnly),
    one(18, "SO_RCVLOWAT", "how many bytes a reader waits for", Saved),
    one(19, "SO_SNDLOWAT", "always 1", ReadOnly),
    one(20, "SO_RCVTIMEO", "how long a reader waits", Saved),
    one(21, "SO_SNDTIMEO", "how long a writer waits", Saved),
    one(22, "SO_SECURITY_AUTHENTICATION", "a number that was never used", NoOption),
    one(23, "SO_SECURITY_ENCRYPTION_TRANSPORT", "a number that was never used", NoOption),
    one(24, "SO_SECURITY_ENCRYPTION_NETWORK", "a number that was never used", NoOption),
    one(25, "SO_BINDTODEVICE", "a network device by name", Another("SO_BINDTOIFINDEX")),
    one(26, "SO_ATTACH_FILTER", "a classic filter; SO_GET_FILTER reads it", Filter),
    one(27, "SO_DETACH_FILTER", "takes a filter away", Nothing),
    one(28, "SO_PEERNAME", "the peer's name, known by the connection", ReadOnly),
    one(29, "SO_TIMESTAMP", "time stamps in microseconds", Saved),
    one(30, "SO_ACCEPTCONN", "whether it listens, an image field of its own", ReadOnly),
    one(31, "SO_PEERSEC", "the peer's security label", ReadOnly),
    one(32, "SO_SNDBUFFORCE", "a send buffer beyond the limit", Another("SO_SNDBUF")),
    one(33, "SO_RCVBUFFORCE", "a receive buffer beyond the limit", Another("SO_RCVBUF")),
    one(34, "SO_PASSSEC", "security labels come with each message", Saved),
    one(35, "SO_TIMESTAMPNS", "time stamps in nanoseconds", Saved),
    one(36, "SO_MARK", "mark of what is sent", Saved),
    one(37, "SO_TIMESTAMPING", "which time stamps are made", Saved),
    one(38, "SO_PROTOCOL", "always 0", ReadOnly),
    one(39, "SO_DOMAIN", "always AF_UNIX", ReadOnly),
    one(40, "SO_RXQ_OVFL", "how much was dropped comes with each message", Saved),
    one(41, "SO_WIFI_STATUS", "a flag that only other families heed", Saved),
    one(42, "SO_PEEK_OFF", "where MSG_PEEK begins", Saved),
    one(43, "SO_NOFCS", "a flag that only other families heed", Saved),
    one(44, "SO_LOCK_FILTER", "the filter cannot be changed any more", Filter),
    one(45, "SO_SELECT_ERR_QUEUE", "what is in the error queue wakes a poll", Saved),
    one(46, "SO_BUSY_POLL", "microseconds of busy polling", Saved),
    one(47, "SO_MAX_PACING_RATE", "bytes a second, of other families", Saved),
    one(48, "SO_BPF_EXTENSIONS", "what filters may use on this kernel", ReadOnly),
    one(49, "SO_INCOMING_CPU", "a processor", Saved),
    one(50, "SO_ATTACH_BPF", "an eBPF filter, of which the kernel tells nothing", Refused),
    one(51, "SO_ATTACH_REUSEPORT_CBPF", "who of several gets a connection, of others", NotUnix),
    one(52, "SO_ATTACH_REUSEPORT_EBPF", "who of several gets a connection, of others", NotUnix),
    one(53, "SO_CNX_ADVICE", "forget a route, of other families", Nothing),
    one(54, "SCM_TIMESTAMPING_OPT_STATS", "a control message", NoOption),
    one(55, "SO_MEMINFO", "memory in use", ReadOnly),
    one(56, "SO_INCOMING_NAPI_ID", "a receive queue of other families", ReadOnly),
    one(57, "SO_COOKIE", "the cookie; a new socket has a new one", ReadOnly),
    one(58, "SCM_TIMESTAMPING_PKTINFO", "a control message", NoOption),
    one(59, "SO_PEERGROUPS", "the peer's groups, an image field of its own", ReadOnly),
    one(60, "SO_ZEROCOPY", "sending without copying, of other families", Saved),
    one(61, "SO_TXTIME", "when to send, of other families", Saved),
    one(62, "SO_BINDTOIFINDEX", "a network device by number, without effect here", Saved),
    one(63, "SO_TIMESTAMP_NEW", "SO_TIMESTAMP with 64 bits everywhere", Saved),
    one(64, "SO_TIMESTAMPNS_NEW", "SO_TIMESTAMPNS with 64 bits everywhere", Saved),
    one(65, "SO_TIMESTAMPING_NEW", "SO_TIMESTAMPING with 64 bits everywhere", Saved),
    one(66, "SO_RCVTIMEO_NEW", "SO_RCVTIMEO with 64 bits everywhere", Another("SO_RCVTIMEO")),
    one(67, "SO_SNDTIMEO_NEW", "SO_SNDTIMEO with 64 bits everywhere", Another("SO_SNDTIMEO")),
    one(68, "SO_DETACH_REUSEPORT_BPF", "takes such a program away", NotUnix),
    one(69, "SO_PREFER_BUSY_POLL", "busy polling rather than interrupts", Saved),
    one(70, "SO_BUSY_POLL_BUDGET", "packets for each busy poll, without effect here", Untold),
    one(71, "SO_NETNS_COOKIE", "the network namespace", ReadOnly),
    one(72, "SO_BUF_LOCK", "the kernel leaves the sizes of the buffers alone", Saved),
    one(73, "SO_RESERVE_MEM", "memory set aside, of other families", Refused),
    one(74, "SO_TXREHASH", "whether a route is chosen anew, of other families", Saved),
    one(75, "SO_RCVMARK", "the mark comes with each message", Saved),
    one(76, "SO_PASSPIDFD", "a pidfd of the sender comes with each message", Saved),
    one(77, "SO_PEERPIDFD", "a pidfd of the peer, known by its credentials", ReadOnly),
    one(78, "SO_DEVMEM_LINEAR", "a control message", NoOption),
    one(79, "SO_DEVMEM_DMABUF", "a control message", NoOption),
    one(80, "SO_DEVMEM_DONTNEED", "gives memory of a device back, of TCP", NotUnix),
    one(81, "SCM_TS_OPT_ID", "a control message", NoOption),
    one(82, "SO_RCVPRIORITY", "the priority comes with each message", Saved),
    one(83, "SO_PASSRIGHTS", "whether descriptors are let in", Saved),
    one(84, "SO_INQ", "how much is left comes with each message", Untold),
];

/// The entry for a number.
#[must_use]
pub fn listed(number: i32) -> Option<&'static Listed> {
    LIST.iter().find(|listed| listed.number == number)
}
