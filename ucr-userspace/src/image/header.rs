//! The first bytes of an image file: what is checked before anything is decoded.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 2 | major version |
//! | 10 | 2 | minor version |
//! | 12 | 4 | flags |
//! | 16 | 8 | payload length in bytes |
//! | 24 | 4 | CRC-32 (ISO-HDLC) of bytes 0 to 23 and the payload |
//!
//! All numbers are little-endian.

use std::fmt;

use super::codec::DecodeError;

/// The first byte is outside ASCII and the line ends are of both kinds, so that a text-mode copy
/// is noticed.
pub const MAGIC: [u8; 8] = *b"\x89UCR\r\n\x1a\n";

/// Size of the header in bytes.
pub const HEADER_LEN: usize = 28;

/// Where the checksum stands; it covers everything before it and everything behind it.
const CHECKSUM_AT: usize = 24;

/// A file larger than this is refused unread: about 100,000 sockets with 1 KiB queued each.
pub const MAX_FILE_LEN: u64 = 128 << 20;

/// The format version that this ucr writes.
///
/// # Changelog
///
/// - 1.0: the first one. `AF_UNIX` stream and seqpacket sockets without queued data.
/// - 1.1: datagram sockets, and who of them is connected to whom.
/// - 2.0: what waits to be received, connections that wait to be accepted, ends whose peer has closed or
///   is outside; supplementary groups, filters, who is told by a signal; other root directories and files
///   that were renamed; where each fact comes from.
/// - 3.0: internet sockets: UDP, UDP-Lite and TCP.
pub const CURRENT: Version = Version { major: 3, minor: 0 };

/// The oldest version that this ucr reads.
pub const OLDEST: Version = Version { major: 1, minor: 0 };

/// Flags that change how the payload is read. None is defined yet; an unknown one is refused,
/// because it may mean anything.
pub const KNOWN_FLAGS: u32 = 0;

/// Version of the file format.
///
/// A new major version has other types: the old types are kept, and an old image is converted. A
/// new minor version only adds what an old image lacks without becoming unreadable (a variant at
/// the end of an enumeration). A reader takes versions from [`OLDEST`] to [`CURRENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Changes when the types do.
    pub major: u16,
    /// Changes when something is added.
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The header that belongs in front of `payload`.
#[must_use]
pub(crate) fn write(version: Version, payload: &[u8]) -> Vec<u8> {
    let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    let mut head = Vec::with_capacity(HEADER_LEN);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&version.major.to_le_bytes());
    head.extend_from_slice(&version.minor.to_le_bytes());
    head.extend_from_slice(&KNOWN_FLAGS.to_le_bytes());
    head.extend_from_slice(&length.to_le_bytes());
    let checksum = checksum(&head, payload);
    head.extend_from_slice(&checksum.to_le_bytes());
    head
}

/// Checks everything that the header promises and returns the version and the payload.
///
/// # Errors
///
/// Each way in which a file can be wrong has its own [`DecodeError`].
pub(crate) fn check(file: &[u8]) -> Result<(Version, &[u8]), DecodeError> {
    if file.is_empty() {
        return Err(DecodeError::Empty);
    }
    let start = file.len().min(MAGIC.len());
    if file.get(..start) != MAGIC.get(..start) {
        return Err(DecodeError::NotAnImage);
    }
    let too_short = DecodeError::TooShort { found: file.len(), needed: HEADER_LEN };
    let Some((head, payload)) = file.split_at_checked(HEADER_LEN) else {
        return Err(too_short);
    };
    let mut fields = Fields(head.split_at(MAGIC.len()).1);
    let version = Version { major: fields.u16(), minor: fields.u16() };
    if version > CURRENT {
        return Err(DecodeError::TooNew { found: version, supported: CURRENT });
    }
    if version < OLDEST {
        return Err(DecodeError::TooOld { found: version, supported: OLDEST });
    }
    let unknown = fields.u32() & !KNOWN_FLAGS;
    if unknown != 0 {
        return Err(DecodeError::UnknownFlags { flags: unknown });
    }
    let promised = fields.u64();
    let found = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    if promised != found {
        return Err(DecodeError::LengthMismatch { promised, found });
    }
    let stored = fields.u32();
    let computed = checksum(head.split_at(CHECKSUM_AT).0, payload);
    if stored != computed {
        return Err(DecodeError::Checksum { stored, computed });
    }
    Ok((version, payload))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// Takes little-endian numbers one after another; the caller has checked the length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (number, rest) = self.0.split_first_chunk().map_or(([0; N], &[][..]), |(n, r)| (*n, r));
        self.0 = rest;
        number
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
