//! An image as a file: read with a limit, written so that no half of it is ever seen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::image::header::MAX_FILE_LEN;
use crate::image::{self, DecodeError, EncodeError, Image};

/// Why an image file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The system refuses something.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A directory, a device, a pipe, a socket.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// Which file.
        path: PathBuf,
    },
    /// `-` would be standard output or input elsewhere.
    #[error(
        "an image is not written to or read from a stream: name a file (./- if it is called -)"
    )]
    Stream,
    /// The file is no usable image.
    #[error("{}", path.display())]
    Decode {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// The image cannot be written.
    #[error("failed to encode the image")]
    Encode(#[source] EncodeError),
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageFileError {
    let path = path.to_path_buf();
    move |source| ImageFileError::Io { operation, path, source }
}

/// Reads and decodes an image file.
///
/// # Errors
///
/// A file that cannot be read, is not a regular one, is too large or is no usable image.
pub fn read(path: &Path) -> Result<Image, ImageFileError> {
    if path == Path::new("-") {
        return Err(ImageFileError::Stream);
    }
    // Not blocking: a named pipe must be refused, not waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(io_error("open", path))?;
    if !file.metadata().map_err(io_error("stat", path))?.is_file() {
        return Err(ImageFileError::NotRegular { path: path.to_path_buf() });
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the decoder sees a file that grows meanwhile.
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    image::decode(&bytes)
        .map_err(|source| ImageFileError::Decode { path: path.to_path_buf(), source })
}

/// Writes an image: a temporary file with mode 0600 in the same directory, synced, renamed over
/// `path`, and the directory synced. Returns the size in bytes. On failure no file is left.
///
/// # Errors
///
/// An inconsistent image, an existing `path` that is not a regular file, and whatever the file
/// system refuses.
pub fn write(path: &Path, image: &Image) -> Result<u64, ImageFileError> {
    if path == Path::new("-") {
        return Err(ImageFileError::Stream);
    }
    let bytes = image::encode(image).map_err(ImageFileError::Encode)?;
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => {
            return Err(ImageFileError::NotRegular { path: path.to_path_buf() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("stat", path)(error)),
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The crate makes it with mode 0600 and removes it when it is dropped without being persisted.
    let mut file = tempfile::Builder::new()
        .prefix(".ucr-image-")
        .tempfile_in(directory)
        .map_err(io_error("create a temporary file in", directory))?;
    file.write_all(&bytes).map_err(io_error("write", path))?;
    file.as_file().sync_all().map_err(io_error("sync", path))?;
    file.persist(path).map_err(|error| io_error("rename to", path)(error.error))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(io_error("sync", directory))?;
    Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}
