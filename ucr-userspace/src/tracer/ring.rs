//! How full the ring buffer is: its positions, as the kernel keeps them, seen through a mapping.

use std::os::fd::AsFd as _;

use super::{TracerError, object::open_pin, pins::PinDirectory};
use crate::sys::bpf::Mapped;

/// Size of a page, of which the two positions have one each (x86-64).
const PAGE: usize = 4096;

/// The positions of a pinned ring buffer.
#[derive(Debug)]
pub struct Ring {
    consumer: Mapped,
    producer: Mapped,
    size: u64,
}

impl Ring {
    /// Looks for it.
    ///
    /// # Errors
    /// A pin that is missing or is not a ring buffer; the kernel's.
    pub fn open(pins: &PinDirectory) -> Result<Self, TracerError> {
        const MAP: &str = "EVENTS";
        let failed = |source| TracerError::Map { map: MAP, source };
        let map = open_pin(&pins.maps(), MAP)?;
        let mapped = |offset| {
            Mapped::at(map.fd().as_fd(), offset, PAGE)
                .map_err(|source| failed(aya::maps::MapError::IoError(source)))
        };
        let size = u64::from(map.info().map_err(failed)?.max_entries());
        Ok(Self { consumer: mapped(0)?, producer: mapped(PAGE)?, size })
    }

    /// Bytes that nobody has read, and how many there is room for.
    #[must_use]
    pub fn depth(&self) -> (u64, u64) {
        let position = |page: &Mapped| page.copy(8).try_into().map_or(0, u64::from_ne_bytes);
        let read = position(&self.consumer);
        (position(&self.producer).saturating_sub(read), self.size)
    }
}
