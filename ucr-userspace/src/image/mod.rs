//! The image file: its header, its types, its codec. Pure; it knows nothing of tracing.

pub mod schema;

pub use schema::*;
