//! An image to bytes and back: header, postcard, validation. Pure.

use serde::Deserialize;

use super::first;
use super::header::{self, HEADER_LEN, MAX_FILE_LEN, Version};
use super::schema::Image;
use super::second;
use super::validate::{self, Invalid};

/// Why bytes are not an image that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// It begins like an image and ends within the header.
    #[error("the file ends within the header: {found} bytes, the header alone has {needed}")]
    TooShort {
        /// Bytes there are.
        found: usize,
        /// Bytes a header has.
        needed: usize,
    },
    /// The magic is missing.
    #[error("not an image of ucr: the first bytes are other ones")]
    NotAnImage,
    /// Written by a later ucr.
    #[error("image format {found} is newer than {supported}, the newest that this ucr reads")]
    TooNew {
        /// Of the image.
        found: Version,
        /// The newest that can be read.
        supported: Version,
    },
    /// Written by a ucr too long ago.
    #[error("image format {found} is older than {supported}, the oldest that this ucr reads")]
    TooOld {
        /// Of the image.
        found: Version,
        /// The oldest that can be read.
        supported: Version,
    },
    /// Flags that this version does not know.
    #[error("unknown image flags {flags:#010x}")]
    UnknownFlags {
        /// Only the unknown ones.
        flags: u32,
    },
    /// Truncated, or something was appended.
    #[error(
        "the header promises {promised} bytes of payload, there are {found}{}",
        if found < promised { " (truncated)" } else { " (trailing bytes)" }
    )]
    LengthMismatch {
        /// What the header says.
        promised: u64,
        /// What is there.
        found: u64,
    },
    /// The bytes were changed.
    #[error("checksum mismatch: {stored:#010x} in the header, {computed:#010x} computed")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// Over header and payload as found.
        computed: u32,
    },
    /// More than any image may have.
    #[error("{found} bytes are more than the {limit} that an image may have")]
    TooLarge {
        /// Size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The payload is not what its version says.
    #[error("failed to decode the payload")]
    Decode(#[source] postcard::Error),
    /// The payload is longer than what was decoded from it.
    #[error("{0} bytes of payload are left over after decoding")]
    LeftOver(usize),
    /// It decodes, and contradicts itself.
    #[error("the image is not consistent: {0}")]
    Invalid(#[from] Invalid),
}

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It contradicts itself, so that it could not be read back.
    #[error("the image is not consistent: {0}")]
    Invalid(#[from] Invalid),
    /// The serialiser refuses.
    #[error("failed to encode the payload")]
    Encode(#[source] postcard::Error),
    /// More than can be read back.
    #[error("{found} bytes are more than the {limit} that an image may have")]
    TooLarge {
        /// Size in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

/// The whole content of an image file.
///
/// # Errors
///
/// An image that [`decode`] would refuse is not encoded.
pub fn encode(image: &Image) -> Result<Vec<u8>, EncodeError> {
    validate::check(image)?;
    // What waits to be received may be much: it is copied once, to behind the room for the header.
    let mut file = postcard::to_extend(image, vec![0; HEADER_LEN]).map_err(EncodeError::Encode)?;
    if let Some((head, payload)) = file.split_at_mut_checked(HEADER_LEN) {
        head.copy_from_slice(&header::write(header::CURRENT, payload));
    }
    match u64::try_from(file.len()) {
        Ok(found) if found > MAX_FILE_LEN => {
            Err(EncodeError::TooLarge { found, limit: MAX_FILE_LEN })
        }
        _ => Ok(file),
    }
}

/// Reads an image from the whole content of a file.
///
/// Memory: postcard hands a sequence's claimed length on only where as many bytes are left, and
/// serde reserves at most 1 MiB per sequence in advance, so what is allocated stays in proportion
/// to the bytes that are there.
///
/// # Errors
///
/// [`DecodeError`], whatever the bytes are; it never panics.
pub fn decode(file: &[u8]) -> Result<Image, DecodeError> {
    match u64::try_from(file.len()) {
        Ok(found) if found > MAX_FILE_LEN => {
            return Err(DecodeError::TooLarge { found, limit: MAX_FILE_LEN });
        }
        _ => {}
    }
    let (version, payload) = header::check(file)?;
    let (image, rest): (Image, _) = match version.major {
        1 => as_it_was::<first::Image>(payload),
        2 => as_it_was::<second::Image>(payload),
        _ => postcard::take_from_bytes(payload),
    }
    .map_err(DecodeError::Decode)?;
    if !rest.is_empty() {
        return Err(DecodeError::LeftOver(rest.len()));
    }
    validate::check(&image)?;
    Ok(image)
}

/// Reads the types of an older format, and what is left.
fn as_it_was<'a, T: Deserialize<'a> + Into<Image>>(
    payload: &'a [u8],
) -> postcard::Result<(Image, &'a [u8])> {
    postcard::take_from_bytes::<T>(payload).map(|(image, rest)| (image.into(), rest))
}
