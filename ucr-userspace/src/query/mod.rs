//! Questions and answers: tables of columns, filters, sorting, counting, graphs. Pure.
//!
//! A listing is a table of [`column::Column`]s over some kind of row: live sockets and closed ones have
//! different columns and the same filters, sorting, counters and output.

pub mod column;
pub mod expression;
pub mod graph;
pub mod listing;
pub mod value;
pub mod who;

pub use column::{Column, Side};
pub use value::Value;
