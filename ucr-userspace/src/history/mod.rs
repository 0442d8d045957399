//! What is gone: closed sockets and past events, in an embedded database.
//!
//! Entries ([`entry`]) are packed into blocks ([`block`]), blocks are rows of an `SQLite` file, which one
//! process writes ([`store`]) and any number read ([`reader`], [`search`]). A batch is written all or
//! nothing, together with the sequence numbers that it covers, so that after whatever end nothing is there
//! twice, and what is missing is known.

pub mod batch;
pub mod block;
pub mod columns;
pub mod entry;
pub mod error;
mod figures;
mod files;
mod gaps;
pub mod kept;
pub mod limits;
pub mod reader;
mod schema;
pub mod search;
pub mod store;
mod totals;
mod writer;

#[cfg(test)]
mod samples;

pub use batch::{Appended, Attachment, Batch, Figures};
pub use entry::{Closing, Gap, GapReason, Gone, Past};
pub use error::StoreError;
pub use limits::Limits;
pub use reader::Reader;
pub use search::{Found, Order, Search, Span};
pub use store::{Opened, Store};
