//! The bytes in which the kernel publishes its own types.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Deref,
    os::fd::AsRawFd as _,
    ptr::NonNull,
};

/// Where they are.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Bytes that do not change.
#[derive(Debug)]
pub enum Bytes {
    /// The kernel's own, seen where they are.
    Mapped(Mapping),
    /// A copy.
    Read(Vec<u8>),
}

/// A mapping of [`KERNEL_BTF`].
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: nobody can write to it.
unsafe impl Sync for Mapping {}

impl Bytes {
    /// The running kernel's. To be mapped saves a copy of megabytes, which the kernel hands out a page at a time;
    /// kernels before 6.16 offer only that.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` if it publishes none.
    pub fn of_kernel() -> io::Result<Self> {
        let mut file = File::open(KERNEL_BTF)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if let Some(mapping) = Mapping::new(&file, length) {
            return Ok(Self::Mapped(mapping));
        }
        let mut bytes = Vec::with_capacity(length);
        file.read_to_end(&mut bytes)?;
        Ok(Self::Read(bytes))
    }
}

impl Mapping {
    /// `None` where the kernel offers no mapping. The file must be [`KERNEL_BTF`].
    fn new(file: &File, length: usize) -> Option<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice, which can only be read.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return None;
        }
        NonNull::new(address.cast()).map(|address| Self { address, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            // SAFETY: the mapping has that many bytes and stays as long as `self`; they are a part of the kernel's
            // image, which is as long as the file and does not change while the kernel runs.
            Self::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts(mapping.address.as_ptr(), mapping.length)
            },
        }
    }
}
