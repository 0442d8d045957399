//! TCP connections whose packets are dropped while they are taken down or brought back.

use crate::shared;

/// Most connections that one lock holds, each in both directions.
pub const MOST: u32 = 1 << 17;

shared! {
    /// One direction of a connection. Addresses of IPv4 are written as IPv6 ones (`::ffff:a.b.c.d`); all is in the
    /// order of the network.
    pub struct Direction: 36 {
        /// Who sends.
        pub from: [u8; 16],
        /// Who is to receive.
        pub to: [u8; 16],
        /// The sender's port.
        pub from_port: [u8; 2],
        /// The receiver's port.
        pub to_port: [u8; 2],
    }
}

shared! {
    /// What holds for the packets of one direction.
    pub struct Locked: 16 {
        /// Until when they are dropped: nanoseconds of the boot-time clock.
        pub until: u64,
        /// `SO_MARK` of the packets that are let through all the same: those that ucr makes itself.
        pub mark: u32,
        /// 0.
        pub reserved: u32,
    }
}
