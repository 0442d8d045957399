//! What can be wrong with an expression, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, MAX_LENGTH};
use crate::{model::name::OneLine, query::value::Kind};

/// An expression that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{problem}")]
pub struct ExpressionError {
    /// Where in the text: a byte's position, at most the text's length.
    pub at: usize,
    /// What.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Problem {
    /// The text is longer than [`MAX_LENGTH`].
    #[error("the expression is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It is nested more deeply than [`MAX_DEPTH`].
    #[error("the expression is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A quote that does not end.
    #[error("this quote does not end")]
    Unterminated,
    /// A backslash and what it cannot stand before.
    #[error("a backslash stands before xNN (two hexadecimal digits), a backslash or a quote")]
    BadEscape,
    /// A character that begins nothing.
    #[error("`{}` is no operator", OneLine(&.0.to_string()))]
    NoOperator(char),
    /// Something else should stand here.
    #[error("{expected} is expected here, not {}", Found(.found.as_deref()))]
    Unexpected {
        /// What should.
        expected: Expected,
        /// What does; nothing at the end of the expression.
        found: Option<String>,
    },
    /// There is no such column.
    #[error("there is no column `{}`", OneLine(name))]
    UnknownColumn {
        /// As it was written.
        name: String,
        /// The one that is called most alike.
        nearest: Option<String>,
    },
    /// `<` and its like with a literal that is neither number nor time.
    #[error("`{}` is neither a number nor a time, and nothing else has an order", OneLine(literal))]
    NoOrder {
        /// The literal, as it would be shown.
        literal: String,
    },
    /// The literal is no glob.
    #[error("this is no glob: {}", OneLine(reason))]
    BadGlob {
        /// Why.
        reason: String,
    },
    /// No cell of the column could be compared with the literal.
    #[error(
        "column `{column}` holds {holds}: it cannot be compared with `{}` like this",
        OneLine(literal)
    )]
    WrongKind {
        /// The column.
        column: String,
        /// What its cells are.
        holds: Kind,
        /// The literal, as it would be shown.
        literal: String,
    },
}

/// What can be expected at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// A column's name, or what may stand before it.
    Column,
    /// What a column is compared with.
    Literal,
    /// The end of parentheses.
    Closing,
    /// A conjunction, or the end.
    End,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Column => "a column",
            Self::Literal => "a word or something in quotes",
            Self::Closing => "`)`",
            Self::End => "`and`, `or` or the end",
        })
    }
}

struct Found<'a>(Option<&'a str>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(token) => write!(f, "`{}`", OneLine(token)),
            None => f.write_str("the end"),
        }
    }
}

impl ExpressionError {
    pub(super) fn new(at: usize, problem: Problem) -> Self {
        Self { at, problem }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.problem {
            Problem::UnknownColumn { nearest: Some(name), .. } => {
                Some(format!("did you mean `{name}`?"))
            }
            Problem::NoOperator('=') => Some("equality is written `==`".to_owned()),
            Problem::NoOperator('&') => Some("it is written `and` or `&&`".to_owned()),
            Problem::NoOperator('|') => Some("it is written `or` or `||`".to_owned()),
            Problem::NoOperator('~') => Some("a glob is matched by `=~`".to_owned()),
            Problem::WrongKind { holds: Kind::Span, .. } => {
                Some("a length of time has a unit: 500ms, 5s, 10m, 2h, 3d".to_owned())
            }
            Problem::WrongKind { holds: Kind::Time, .. } => Some(
                "a time is a date, 2026-11-23T10:00:00Z, or how long ago it was: 5s, 10m, 2h, 3d"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The expression on a line, and a caret below the place. `text` is what was parsed.
    #[must_use]
    pub fn pointed(&self, text: &str) -> String {
        /// Of a long expression only so many bytes before and behind the place are shown.
        const AROUND: usize = 60;
        let start = text.floor_char_boundary(self.at.saturating_sub(AROUND));
        let at = text.floor_char_boundary(self.at);
        let end = text.ceil_char_boundary(self.at.saturating_add(AROUND));
        let piece = |from, to| OneLine(text.get(from..to).unwrap_or_default()).to_string();
        let before = piece(start, at);
        format!("{before}{}\n{:>width$}", piece(at, end), '^', width = before.len() + 1)
    }
}
