//! Shapes shared by the eBPF programs and user space.
//!
//! Everything here is `repr(C)` with fixed-width fields and no implicit padding: no bool, no enum,
//! no Option. What a number means is said by the constants beside it.

#![no_std]

pub mod control;
pub mod descriptor;
pub mod event;
pub mod identity;
pub mod inet;
pub mod lock;
pub mod memory;
pub mod name;
pub mod offsets;
pub mod paths;
pub mod record;
pub mod sighting;

/// Derives what a shape shared with the kernel needs, and pins its size.
macro_rules! shared {
    ($(#[$meta:meta])* pub struct $name:ident : $size:literal { $($body:tt)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($body)* }

        const _: () = assert!(size_of::<$name>() == $size);
    };
}
use shared;
