//! The image file: its header, its types, its codec. Pure; it knows nothing of tracing.

pub mod codec;
pub mod connection;
pub mod datagrams;
pub mod file;
mod first;
pub mod header;
mod inet;
pub mod interfaces;
pub mod message;
mod netlink;
pub mod schema;
mod second;
pub mod validate;

pub use codec::{DecodeError, EncodeError, decode, encode};
pub use connection::{Connection, External, Was};
pub use inet::{
    Agreed, Buffers, Datagram, HeldBack, Inet, InetOption, Membership, Progress, Stream, Tcp,
    Urgent, Waiting, Window,
};
pub use interfaces::Interface;
pub use message::{ForeignFile, Message, OutOfBand, Passed, Sender};
pub use netlink::Netlink;
pub use schema::*;
pub use validate::Invalid;
