//! Messages on the control socket: a length, and so many bytes of postcard.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end is gone, or the socket failed.
    #[error("read a message")]
    Read(#[source] io::Error),
    /// It is longer than what is read.
    #[error("a message of {length} bytes is longer than {limit}")]
    TooLong {
        /// How long it is.
        length: u64,
        /// What is read at most.
        limit: u64,
    },
    /// It is none of ours.
    #[error("understand a message")]
    Malformed(#[source] postcard::Error),
}

/// A message as it is sent.
///
/// # Errors
/// What cannot be written as postcard: a mistake of ours.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    bytes = postcard::to_extend(message, bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    if let Some(head) = bytes.first_chunk_mut::<4>() {
        *head = length.to_le_bytes();
    }
    Ok(bytes)
}

/// Writes a message.
///
/// # Errors
/// The socket's.
pub async fn write<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    to.write_all(&encode(message)?).await
}

/// Reads the bytes of a message of at most so many; nothing is allocated for more than have come.
///
/// # Errors
/// See [`FrameError`].
pub async fn read_bytes(
    from: &mut (impl AsyncRead + Unpin),
    limit: u64,
) -> Result<Vec<u8>, FrameError> {
    let length = from.read_u32_le().await.map_err(FrameError::Read)?;
    check(length, limit)?;
    let mut bytes = Vec::new();
    let read = from.take(length.into()).read_to_end(&mut bytes).await;
    whole(read, length)?;
    Ok(bytes)
}

/// Reads a message.
///
/// # Errors
/// See [`FrameError`].
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    limit: u64,
) -> Result<T, FrameError> {
    postcard::from_bytes(&read_bytes(from, limit).await?).map_err(FrameError::Malformed)
}

/// The same for who waits for nothing else.
///
/// # Errors
/// The socket's.
pub fn write_now<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// The same for who waits for nothing else.
///
/// # Errors
/// See [`FrameError`].
pub fn read_now<T: DeserializeOwned>(from: &mut impl Read, limit: u64) -> Result<T, FrameError> {
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(FrameError::Read)?;
    let length = u32::from_le_bytes(length);
    check(length, limit)?;
    let mut bytes = Vec::new();
    let read = from.take(length.into()).read_to_end(&mut bytes);
    whole(read, length)?;
    postcard::from_bytes(&bytes).map_err(FrameError::Malformed)
}

fn check(length: u32, limit: u64) -> Result<(), FrameError> {
    let length = length.into();
    if length > limit { Err(FrameError::TooLong { length, limit }) } else { Ok(()) }
}

fn whole(read: io::Result<usize>, length: u32) -> Result<(), FrameError> {
    match read {
        Ok(read) if u32::try_from(read) == Ok(length) => Ok(()),
        Ok(_) => Err(FrameError::Read(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(FrameError::Read(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_as_it_was_sent() {
        let mut wire = Vec::new();
        write_now(&mut wire, &("hello", 7_u32)).expect("written");
        let message: (String, u32) = read_now(&mut wire.as_slice(), 100).expect("read");
        assert_eq!(message, ("hello".to_owned(), 7));
    }

    #[test]
    fn a_message_that_is_cut_or_too_long_or_none_is_refused() {
        let wire = encode(&"hello").expect("a message");
        for cut in 0..wire.len() {
            let read = read_now::<String>(&mut wire.get(..cut).expect("a part"), 100);
            assert!(matches!(read, Err(FrameError::Read(_))), "{cut}");
        }
        let read = read_now::<String>(&mut wire.as_slice(), 3);
        assert!(matches!(read, Err(FrameError::TooLong { limit: 3, .. })));
        // It announces four gigabytes, and nothing is allocated for it.
        let read = read_now::<String>(&mut [255_u8; 4].as_slice(), u64::MAX);
        assert!(matches!(read, Err(FrameError::Read(_))));
        let read = read_now::<String>(&mut [1, 0, 0, 0, 255].as_slice(), 100);
        assert!(matches!(read, Err(FrameError::Malformed(_))));
    }
}
