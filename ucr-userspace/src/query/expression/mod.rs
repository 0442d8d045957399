//! Filters: which rows are wanted, as an expression over the columns of a listing.
//!
//! ```text
//! expression = all { ("or" | "||") all }
//! all        = one { ("and" | "&&") one }
//! one        = ("not" | "!") one | "(" expression ")" | COLUMN [ OP LITERAL ]
//! OP         = "==" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "!~"
//! ```
//!
//! A column alone means that there is something in it. `=~` matches the text that is shown with a
//! glob. A literal is a word, or anything between quotes, where `\xNN` is a byte, and `\\`, `\"`
//! and `\'` are themselves; what it means depends on the cell:
//!
//! * a number may end with `K`, `M` or `G` (powers of 1024);
//! * a length of time needs units: `500ms`, `3d4h`;
//! * a moment is a date (RFC 3339, UTC), or a length of time, which then means that long ago: so
//!   `since > 1h` holds for what has been since less than an hour;
//! * text and names are compared as they are shown: an abstract name begins with `@`.
//!
//! A comparison with a list holds if it holds for one of its elements. One with a cell in which
//! there is nothing, or with what the literal cannot mean, does not hold; `!=` and `!~` are the
//! contrary of `==` and `=~`, always.
//!
//! Expressions come from other users: their length and nesting are limited, and with them all
//! recursion.

mod error;
mod evaluate;
mod lexer;
mod literal;
mod parser;

pub use error::{Expected, ExpressionError, Problem};

use super::{Column, Value};
use evaluate::Node;

/// An expression may be so long, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// Parentheses and negations may be nested so deeply.
pub const MAX_DEPTH: usize = 64;

/// A filter over rows of type `T`: what an expression means to the columns of one listing.
pub struct Expression<T: ?Sized> {
    root: Node<T>,
}

impl<T: ?Sized> Expression<T> {
    /// Reads an expression. `now` is what lengths of time are counted back from, in nanoseconds
    /// since the epoch.
    ///
    /// # Errors
    /// Text that is no expression, a column that is not there, an order of what has none, a limit
    /// that is exceeded: each with its place in the text.
    pub fn parse(text: &str, columns: &[Column<T>], now: u64) -> Result<Self, ExpressionError> {
        parser::parse(text, columns, now).map(|root| Self { root })
    }

    /// Whether a row is wanted. Only the columns that decide it are evaluated.
    pub fn holds(&mut self, row: &T) -> bool {
        self.root.holds(row)
    }

    /// A comparison that had no meaning for any cell that it met. A column does not tell of what
    /// kind its cells are, so this is known once there have been some.
    #[must_use]
    pub fn misfit(&self) -> Option<ExpressionError> {
        self.root.misfit()
    }
}

/// How a cell is had from a row.
type Get<T> = fn(&T) -> Value;

#[cfg(test)]
mod tests;
