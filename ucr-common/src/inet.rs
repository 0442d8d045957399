//! The two ends of an internet socket, as they travel from the kernel: where a unix socket's record and events
//! have their name.

use crate::name::RawName;

/// `AF_UNIX`.
pub const AF_UNIX: u32 = 1;
/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;

/// How many words both ends take.
pub const WORDS: usize = 12;
/// What [`RawName::len`] is where two ends stand in the place of a name.
pub const ENDS_LEN: u32 = 48;
/// What it is in the event of a call that failed: the bytes are the caller's `struct sockaddr_in` or `sockaddr_in6`.
pub const ASKED_LEN: u32 = 28;

/// One end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawEnd {
    /// In network byte order; of `AF_INET` the first four bytes.
    pub address: [u8; 16],
    /// Port, in the host's byte order.
    pub port: u16,
    /// The interface that the socket is bound to: what an address of local scope belongs to.
    pub interface: u32,
}

/// Both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawEnds {
    /// Its own.
    pub local: RawEnd,
    /// The other one.
    pub remote: RawEnd,
}

impl RawEnd {
    fn of(words: &[u8]) -> Self {
        let mut end = Self::default();
        let (address, rest) = words.split_at(16);
        end.address.copy_from_slice(address);
        let mut fields = rest.chunks_exact(4).filter_map(|word| word.try_into().ok());
        let mut field = || fields.next().map_or(0, u32::from_ne_bytes);
        end.port = u16::try_from(field()).unwrap_or(0);
        end.interface = field();
        end
    }

    fn put(&self, words: &mut [u8]) {
        let (address, rest) = words.split_at_mut(16);
        address.copy_from_slice(&self.address);
        let (port, interface) = rest.split_at_mut(4);
        port.copy_from_slice(&u32::from(self.port).to_ne_bytes());
        interface.copy_from_slice(&self.interface.to_ne_bytes());
    }
}

impl RawEnds {
    /// What stands in the place of a name; `None` if there is something else.
    #[must_use]
    pub fn of(name: &RawName) -> Option<Self> {
        if name.len != ENDS_LEN {
            return None;
        }
        let (local, remote) = name.as_bytes().split_at(24);
        Some(Self { local: RawEnd::of(local), remote: RawEnd::of(remote) })
    }

    /// As it stands in the place of a name.
    #[must_use]
    pub fn to_name(&self) -> RawName {
        let mut name = RawName::UNNAMED;
        name.len = ENDS_LEN;
        let (local, rest) = name.bytes.split_at_mut(24);
        self.local.put(local);
        let (remote, _) = rest.split_at_mut(24);
        self.remote.put(remote);
        name
    }

    /// Its bit of the `ENDS` map: see [`bit_of`].
    #[must_use]
    pub fn bit(&self) -> u32 {
        let name = self.to_name();
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(name.bytes.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        bit_of(&words)
    }
}

/// How many bits the `ENDS` map has: a few connections among hundred thousands are told apart.
pub const ENDS_BITS: u32 = 1 << 20;
/// Bits of one of its elements.
pub const ENDS_WORD: u32 = 64;

/// Which bit of the `ENDS` map stands for a connection: `words` are both ends as they stand in the place of a name.
/// Interfaces do not count, and IPv4 in the clothes of IPv6 is IPv4: the ends of one connection need not agree on
/// these. Two connections may have one bit: whoever finds one has to compare.
#[inline(always)]
#[must_use]
pub fn bit_of(words: &[u32; WORDS]) -> u32 {
    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    let [a, b, c, d, local_port, _, e, f, g, h, remote_port, _] = *words;
    let plain = |address: [u32; 4]| match address {
        [0, 0, MAPPED, v4] => [v4, 0, 0, 0],
        other => other,
    };
    let ([a, b, c, d], [e, f, g, h]) = (plain([a, b, c, d]), plain([e, f, g, h]));
    let mut mixed = 0_u64;
    for word in [a, b, c, d, local_port, e, f, g, h, remote_port] {
        mixed = (mixed ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 32;
    }
    u32::try_from(mixed % u64::from(ENDS_BITS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_its_bit_in_whatever_clothes() {
        let mut plain = RawEnd { port: 80, ..RawEnd::default() };
        plain.address[..4].copy_from_slice(&[10, 0, 0, 1]);
        let mut mapped = RawEnd { port: 80, interface: 7, ..RawEnd::default() };
        mapped.address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        let other = RawEnd { address: [9; 16], port: 999, interface: 0 };
        let ends = RawEnds { local: plain, remote: other };
        assert_eq!(ends.bit(), RawEnds { local: mapped, remote: other }.bit());
        // The other end has it the other way round, which is another bit.
        assert_ne!(ends.bit(), RawEnds { local: other, remote: plain }.bit());
        let mut seen: [bool; 4096] = [false; 4096];
        let mut together = 0;
        for port in 0..4096 {
            let remote = RawEnd { port, ..other };
            let at = RawEnds { local: plain, remote }.bit() as usize % seen.len();
            together += u32::from(seen[at]);
            seen[at] = true;
        }
        // By chance it would be 1,507 that meet another one.
        assert!((1300..1700).contains(&together), "{together}");
    }

    #[test]
    fn two_ends_stand_where_a_name_does() {
        let local = RawEnd { address: [7; 16], port: 80, interface: 3 };
        let remote = RawEnd { address: [9; 16], port: 65_535, interface: 0 };
        let ends = RawEnds { local, remote };
        assert_eq!(RawEnds::of(&ends.to_name()), Some(ends));
        assert_eq!(RawEnds::of(&RawName::UNNAMED), None);
    }
}
