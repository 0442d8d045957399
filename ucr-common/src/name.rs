//! A socket name as it travels from the kernel: raw `sun_path` bytes with their length.

use crate::shared;

/// Room for the name, in bytes (`sun_path` of `struct sockaddr_un`).
pub const NAME_MAX: usize = 108;

shared! {
    /// `sun_path`: no bytes for an unnamed socket, a leading NUL for an abstract name, a pathname
    /// without its final NUL.
    pub struct RawName: 112 {
        /// How many of `bytes` count, at most [`NAME_MAX`].
        pub len: u32,
        /// The name; what lies beyond `len` means nothing (see [`RawName::clear_tail`]).
        pub bytes: [u8; NAME_MAX],
    }
}

impl RawName {
    /// No name.
    pub const UNNAMED: Self = Self { len: 0, bytes: [0; NAME_MAX] };

    /// Clears what lies beyond `len`: the programs copy more than the name.
    pub fn clear_tail(&mut self) {
        let len = usize::try_from(self.len).unwrap_or(NAME_MAX);
        self.bytes.iter_mut().skip(len).for_each(|byte| *byte = 0);
    }

    /// The bytes that count.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = usize::try_from(self.len).unwrap_or(NAME_MAX).min(NAME_MAX);
        self.bytes.split_at(len).0
    }
}
