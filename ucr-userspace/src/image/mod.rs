//! The image file: its header, its types, its codec. Pure; it knows nothing of tracing.

pub mod codec;
pub mod datagrams;
pub mod file;
pub mod header;
pub mod schema;
pub mod validate;

pub use codec::{DecodeError, EncodeError, decode, encode};
pub use schema::*;
pub use validate::Invalid;
