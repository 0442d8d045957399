//! Many entries of one kind as bytes, and back. Pure.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version |
//! | 1 | 1 | kind |
//! | 2 | 4 | entries |
//! | 6 | 4 | length of the payload, decompressed |
//! | 10 | 4 | CRC-32 (ISO-HDLC) of bytes 0 to 9 and the payload, compressed |
//!
//! All numbers are little-endian. The payload is a zstd frame, in it the entries in postcard, one behind the
//! other. That actors and names repeat is left to zstd: tables of them make blocks a tenth smaller, and
//! writing slower.

use std::io;

use super::kept::{Kept, Kind};

/// The version that this ucr writes, and the only one there is.
const VERSION: u8 = 1;
/// Size of what stands before the payload, in bytes.
const HEADER_LEN: usize = 14;
/// Where the checksum stands; it covers everything before it and everything behind it.
const CHECKSUM_AT: usize = 10;
/// No block has more entries.
pub const MAX_ENTRIES: usize = 4096;
/// No block's payload is longer, decompressed, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// A block that has reached this length takes no further entry.
const FULL: usize = MAX_PAYLOAD - MAX_VARIABLE - MAX_FIXED;
/// An entry whose names and paths are longer is not kept: the kernel's are far shorter.
const MAX_VARIABLE: usize = 32 << 10;
/// More than an entry's numbers need.
const MAX_FIXED: usize = 512;
/// Fast, and not much worse than slower ones on data like this.
const LEVEL: i32 = 1;

/// Why bytes are not a block that can be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Not even a header.
    #[error("{0} bytes are too short for a block")]
    TooShort(usize),
    /// The bytes were changed.
    #[error("checksum mismatch: {stored:#010x} in the block, {computed:#010x} computed")]
    Checksum {
        /// What the block says.
        stored: u32,
        /// Over header and payload as found.
        computed: u32,
    },
    /// Written by another ucr.
    #[error("block version {0} is unknown")]
    Version(u8),
    /// Other entries than those that were asked for.
    #[error("the block holds entries of kind {0}")]
    Kind(u8),
    /// It claims more than any block has.
    #[error("the block claims {entries} entries in {payload} bytes")]
    TooLarge {
        /// Entries that it claims.
        entries: u32,
        /// Decompressed length that it claims.
        payload: u32,
    },
    /// Not what zstd made.
    #[error("decompress a block")]
    Decompress(#[source] io::Error),
    /// Not the length that was promised.
    #[error("the payload has {found} bytes, and was promised to have {promised}")]
    Length {
        /// What the header says.
        promised: usize,
        /// What is there.
        found: usize,
    },
    /// The payload is not what its version says.
    #[error("decode a block")]
    Decode(#[source] postcard::Error),
    /// The payload is longer than what was decoded from it.
    #[error("{0} bytes of payload are left over after decoding")]
    LeftOver(usize),
}

/// Why a block cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The serialiser refuses.
    #[error("encode entries")]
    Encode(#[source] postcard::Error),
    /// The compressor refuses.
    #[error("compress entries")]
    Compress(#[source] io::Error),
}

/// What became of an entry that was put into a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is in, and there is room for more.
    Kept,
    /// It is in, and the block is full.
    Full,
    /// It is longer than anything the kernel makes, and not in.
    TooLong,
}

/// Makes blocks, one after another, and keeps its memory in between.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    payload: Vec<u8>,
    entries: u32,
    first_stamp: u64,
    last_stamp: u64,
}

/// A block and what is said of it beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The block.
    pub bytes: Vec<u8>,
    /// How many entries it has.
    pub entries: u32,
    /// The earliest stamp.
    pub first_stamp: u64,
    /// The latest stamp.
    pub last_stamp: u64,
}

impl Encoder {
    /// An empty one.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new() -> Result<Self, EncodeError> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(LEVEL).map_err(EncodeError::Compress)?,
            payload: Vec::new(),
            entries: 0,
            first_stamp: u64::MAX,
            last_stamp: 0,
        })
    }

    /// Puts an entry in. All entries up to [`Encoder::finish`] have to be of one kind.
    ///
    /// # Errors
    /// The serialiser's; the block is of no use then.
    pub fn push<T: Kept>(&mut self, entry: &T) -> Result<Pushed, EncodeError> {
        if entry.variable_len() > MAX_VARIABLE {
            return Ok(Pushed::TooLong);
        }
        let payload = std::mem::take(&mut self.payload);
        self.payload = postcard::to_extend(entry, payload).map_err(EncodeError::Encode)?;
        self.entries += 1;
        self.first_stamp = self.first_stamp.min(entry.stamp());
        self.last_stamp = self.last_stamp.max(entry.stamp());
        let is_full = usize::try_from(self.entries).is_ok_and(|entries| entries >= MAX_ENTRIES)
            || self.payload.len() >= FULL;
        Ok(if is_full { Pushed::Full } else { Pushed::Kept })
    }

    /// The block, if anything is in it; the next entry begins another one.
    ///
    /// # Errors
    /// The serialiser's and the compressor's; what was put in is gone then.
    pub fn finish<T: Kept>(&mut self) -> Result<Option<Encoded>, EncodeError> {
        let encoded = if self.entries > 0 { self.encode(T::KIND).map(Some) } else { Ok(None) };
        self.clear();
        encoded
    }

    /// Forgets what was put in.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.entries = 0;
        (self.first_stamp, self.last_stamp) = (u64::MAX, 0);
    }

    fn encode(&mut self, kind: Kind) -> Result<Encoded, EncodeError> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let compressed = self.compressor.compress(&self.payload).map_err(EncodeError::Compress)?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + compressed.len());
        bytes.extend_from_slice(&[VERSION, kind.number()]);
        bytes.extend_from_slice(&self.entries.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let checksum = checksum(&bytes, &compressed);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&compressed);
        let Self { entries, first_stamp, last_stamp, .. } = *self;
        Ok(Encoded { bytes, entries, first_stamp, last_stamp })
    }
}

/// Reads a block.
///
/// Memory: what is allocated is bounded by [`MAX_PAYLOAD`] and [`MAX_ENTRIES`], whatever the bytes claim.
///
/// # Errors
/// [`BlockError`], whatever the bytes are; it never panics.
pub fn decode<T: Kept>(bytes: &[u8]) -> Result<Vec<T>, BlockError> {
    let (count, promised, compressed) = check(bytes, T::KIND)?;
    let payload = zstd::bulk::decompress(compressed, promised).map_err(BlockError::Decompress)?;
    if payload.len() != promised {
        return Err(BlockError::Length { promised, found: payload.len() });
    }
    let mut rest = payload.as_slice();
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (entry, after) = postcard::take_from_bytes(rest).map_err(BlockError::Decode)?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(BlockError::LeftOver(rest.len())) }
}

/// Checks everything that the header promises; entries, length of the payload, and the payload.
fn check(bytes: &[u8], kind: Kind) -> Result<(usize, usize, &[u8]), BlockError> {
    let Some((head, compressed)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(BlockError::TooShort(bytes.len()));
    };
    let [version, found_kind, e0, e1, e2, e3, p0, p1, p2, p3, c0, c1, c2, c3] = *head;
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    let computed = checksum(head.split_at(CHECKSUM_AT).0, compressed);
    if stored != computed {
        return Err(BlockError::Checksum { stored, computed });
    }
    if version != VERSION {
        return Err(BlockError::Version(version));
    }
    if found_kind != kind.number() {
        return Err(BlockError::Kind(found_kind));
    }
    let (entries, payload) =
        (u32::from_le_bytes([e0, e1, e2, e3]), u32::from_le_bytes([p0, p1, p2, p3]));
    match (usize::try_from(entries), usize::try_from(payload)) {
        (Ok(n), Ok(length)) if n <= MAX_ENTRIES && length <= MAX_PAYLOAD => {
            Ok((n, length, compressed))
        }
        _ => Err(BlockError::TooLarge { entries, payload }),
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
