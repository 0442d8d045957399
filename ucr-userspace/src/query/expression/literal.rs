//! What a column is compared with, in each of its readings.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::model::{
    name::{Escaped, is_plain},
    time::{parse_span, parse_utc},
};

/// What stands between a column and a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
    Like,
    NotLike,
}

/// A literal as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// As a cell would be shown that equals it.
    pub(super) shown: String,
    /// As a glob over what cells show. A backslash has no meaning in it.
    pub(super) glob: String,
}

impl Text {
    /// A word without quotes: what somebody has copied from a listing, escapes and all.
    pub(super) fn bare(word: &str) -> Self {
        let mut shown = String::with_capacity(word.len());
        for byte in word.bytes() {
            push(byte, &mut shown, |byte| is_plain(byte) || byte == b'\\');
        }
        Self { glob: shown.clone(), shown }
    }
}

/// A quoted literal that is being read.
#[derive(Default)]
pub(super) struct Quoted {
    text: Text,
    /// The first byte was escaped: then it does not mark an abstract name.
    starts_escaped: Option<u8>,
}

impl Quoted {
    /// Takes a byte that stands for itself.
    pub(super) fn push(&mut self, byte: u8) {
        push(byte, &mut self.text.shown, is_plain);
        push(byte, &mut self.text.glob, is_plain);
    }

    /// Takes a byte that was written with a backslash.
    pub(super) fn push_escaped(&mut self, byte: u8) {
        if self.text.shown.is_empty() {
            self.starts_escaped = Some(byte);
        }
        push(byte, &mut self.text.shown, is_plain);
        match byte {
            b'*' | b'?' | b'[' | b']' | b'{' | b'}' => {
                self.text.glob.extend(['[', char::from(byte), ']']);
            }
            _ => push(byte, &mut self.text.glob, is_plain),
        }
    }

    /// The quote has ended. A path that begins with `@`, or is `-`, is shown with that escaped (see
    /// `UnixName`): so it is here, if it was written so.
    pub(super) fn finish(self) -> Text {
        let Text { shown, glob } = self.text;
        let is_odd_path = match self.starts_escaped {
            Some(b'@') => true,
            Some(b'-') => shown == "-",
            _ => false,
        };
        let protect = |text: String| match text.split_at_checked(1) {
            Some(("@", rest)) if is_odd_path => format!("\\x40{rest}"),
            Some(("-", rest)) if is_odd_path => format!("\\x2d{rest}"),
            _ => text,
        };
        Text { shown: protect(shown), glob: protect(glob) }
    }
}

fn push(byte: u8, text: &mut String, is_plain: impl Fn(u8) -> bool) {
    if is_plain(byte) {
        text.push(char::from(byte));
    } else {
        text.push_str(&Escaped(&[byte]).to_string());
    }
}

/// A literal in all its readings.
pub(super) struct Literal {
    /// As text.
    pub(super) text: Text,
    /// As a number.
    pub(super) number: Option<u64>,
    /// As a length of time, in nanoseconds.
    pub(super) span: Option<u64>,
    /// As a moment, in nanoseconds since the epoch.
    pub(super) time: Option<u64>,
}

impl Literal {
    /// Reads it in every way. `now`: what a length of time is counted back from.
    pub(super) fn read(text: Text, now: u64) -> Self {
        let (number, span) = (parse_number(&text.shown), parse_span(&text.shown));
        let time = parse_utc(&text.shown).or_else(|| span.map(|span| now.saturating_sub(span)));
        Self { text, number, span, time }
    }

    /// Whether something can be less than it.
    pub(super) fn has_order(&self) -> bool {
        self.number.or(self.span).or(self.time).is_some()
    }

    /// Compiles it as a glob.
    ///
    /// # Errors
    /// It is none, or one that is too large or nested too deeply: some of that is found only by
    /// building the set (a single matcher would panic).
    pub(super) fn glob(&self) -> Result<GlobSet, globset::Error> {
        let glob = GlobBuilder::new(&self.text.glob).backslash_escape(false).build()?;
        GlobSetBuilder::new().add(glob).build()
    }
}

/// A number, perhaps with a binary suffix.
fn parse_number(text: &str) -> Option<u64> {
    let (digits, unit) = match text.split_at_checked(text.len().saturating_sub(1))? {
        (digits, "K") => (digits, 1 << 10),
        (digits, "M") => (digits, 1 << 20),
        (digits, "G") => (digits, 1 << 30),
        _ => (text, 1),
    };
    // `parse` would take a sign.
    let number: u64 =
        digits.parse().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))?;
    number.checked_mul(unit)
}
