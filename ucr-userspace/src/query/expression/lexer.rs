//! An expression's text as tokens.

use super::{
    error::{ExpressionError, Problem},
    literal::{Operator, Quoted, Text},
};

/// A token and where it begins.
pub(super) struct Placed<'a> {
    /// A byte's position in the text.
    pub(super) at: usize,
    /// As it is written.
    pub(super) source: &'a str,
    /// What it is.
    pub(super) token: Token,
}

/// What an expression is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `!`. A word may be `not`, which depends on where it stands.
    Not,
    /// `&&`
    And,
    /// `||`
    Or,
    /// Between a column and a literal.
    Operator(Operator),
    /// A column, a literal or `and`, `or`, `not`.
    Word,
    /// A literal.
    Quoted(Text),
}

/// Longer ones first.
const SIGNS: [(&str, Token); 13] = [
    ("==", Token::Operator(Operator::Equal)),
    ("=~", Token::Operator(Operator::Like)),
    ("!=", Token::Operator(Operator::NotEqual)),
    ("!~", Token::Operator(Operator::NotLike)),
    ("<=", Token::Operator(Operator::AtMost)),
    (">=", Token::Operator(Operator::AtLeast)),
    ("<", Token::Operator(Operator::Less)),
    (">", Token::Operator(Operator::More)),
    ("&&", Token::And),
    ("||", Token::Or),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
];

/// All tokens of a text.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed<'_>>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let at = text.len() - rest.len();
        let (token, length) = match SIGNS.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
            Some((sign, token)) => (token, sign.len()),
            None if matches!(first, '"' | '\'') => {
                let (text, length) = quoted(rest, at)?;
                (Token::Quoted(text), length)
            }
            None if ends_word(first) => {
                return Err(ExpressionError::new(at, Problem::NoOperator(first)));
            }
            None => (Token::Word, rest.find(ends_word).unwrap_or(rest.len())),
        };
        let (source, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
        tokens.push(Placed { at, source, token });
        rest = behind.trim_start();
    }
    Ok(tokens)
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || "()!<>=~&|\"'".contains(c)
}

/// What stands between quotes at the beginning of a text that begins at `start`, and how long it is
/// with them.
fn quoted(text: &str, start: usize) -> Result<(Text, usize), ExpressionError> {
    let mut bytes = text.bytes().enumerate();
    let quote = bytes.next().map(|(_, quote)| quote);
    let mut content = Quoted::default();
    while let Some((at, byte)) = bytes.next() {
        if Some(byte) == quote {
            return Ok((content.finish(), at + 1));
        }
        if byte != b'\\' {
            content.push(byte);
            continue;
        }
        let bad = || ExpressionError::new(start + at, Problem::BadEscape);
        match bytes.next() {
            None => break,
            Some((_, escaped @ (b'\\' | b'"' | b'\''))) => content.push_escaped(escaped),
            Some((_, b'x')) => {
                let digits = text.get(at + 2..at + 4).ok_or_else(bad)?;
                // `from_str_radix` would take a sign.
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                content.push_escaped(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
                bytes.nth(1);
            }
            Some(_) => return Err(bad()),
        }
    }
    Err(ExpressionError::new(start, Problem::Unterminated))
}
