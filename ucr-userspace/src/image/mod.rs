//! The image file: its header, its types, its codec. Pure; it knows nothing of tracing.

pub mod codec;
pub mod connection;
pub mod datagrams;
pub mod file;
mod first;
pub mod header;
pub mod message;
pub mod schema;
pub mod validate;

pub use codec::{DecodeError, EncodeError, decode, encode};
pub use connection::{Connection, External, Was};
pub use message::{ForeignFile, Message, OutOfBand, Passed, Sender};
pub use schema::*;
pub use validate::Invalid;
