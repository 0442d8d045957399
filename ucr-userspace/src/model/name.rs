//! A unix socket's name: bytes, turned into text only when shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

/// Room for a name in `struct sockaddr_un` (`sun_path`), in bytes.
pub const SUN_PATH_MAX: usize = 108;

/// The name of a unix socket as the kernel keeps it (`struct unix_address`, `unix(7)`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnixName {
    /// Never bound.
    #[default]
    Unnamed,
    /// A path in the file system, as it was given to `bind`: perhaps relative, at most 108 bytes,
    /// no NUL inside.
    Pathname(Vec<u8>),
    /// A name in the network namespace's abstract table, without the leading NUL: any bytes, at
    /// most 107. It may be empty (`bind` with one NUL byte).
    Abstract(Vec<u8>),
}

impl UnixName {
    /// Takes the bytes of `sun_path` as the kernel hands them out: length known from the address
    /// length, a pathname with or without its final NUL.
    #[must_use]
    pub fn from_sun_path(bytes: &[u8]) -> Self {
        match bytes.split_first() {
            None => Self::Unnamed,
            Some((0, rest)) => Self::Abstract(rest.to_vec()),
            Some(_) => Self::Pathname(
                bytes.iter().position(|b| *b == 0).map_or(bytes, |n| bytes.split_at(n).0).to_vec(),
            ),
        }
    }

    /// The bytes that go into `sun_path`: a leading NUL before an abstract name, none behind a
    /// pathname (the kernel adds it, which is how a path of 108 bytes fits).
    #[must_use]
    pub fn to_sun_path(&self) -> Vec<u8> {
        match self {
            Self::Unnamed => Vec::new(),
            Self::Pathname(path) => path.clone(),
            Self::Abstract(name) => [&[0], name.as_slice()].concat(),
        }
    }

    /// The name's own bytes, without the NUL that marks an abstract name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Unnamed => &[],
            Self::Pathname(bytes) | Self::Abstract(bytes) => bytes,
        }
    }

    /// Whether the socket has a name at all.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !matches!(self, Self::Unnamed)
    }

    /// Whether this is a path that has a meaning only together with a working directory.
    #[must_use]
    pub fn is_relative_path(&self) -> bool {
        matches!(self, Self::Pathname(path) if !path.starts_with(b"/"))
    }

    /// Whether the kernel could hold this name: what an image claims is checked with it.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        match self {
            Self::Unnamed => true,
            Self::Pathname(path) => {
                !path.is_empty() && path.len() <= SUN_PATH_MAX && !path.contains(&0)
            }
            Self::Abstract(name) => name.len() < SUN_PATH_MAX,
        }
    }
}

impl fmt::Display for UnixName {
    /// One line, safe for a terminal: `-` for no name, `@` before an abstract name, every byte
    /// outside printable ASCII escaped, and a pathname that itself begins with `@` or is `-`
    /// written with a leading `\x40` or `\x2d` so that it cannot pass for another kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("-"),
            Self::Abstract(name) => write!(f, "@{}", Escaped(name)),
            Self::Pathname(path) => match path.split_first() {
                Some((first @ b'@', rest)) | Some((first @ b'-', rest @ [])) => {
                    write!(f, "\\x{first:02x}{}", Escaped(rest))
                }
                _ => Escaped(path).fmt(f),
            },
        }
    }
}

/// Bytes shown so that they can do no harm to a terminal and can be read back: printable ASCII as
/// it is, a backslash doubled, all else as `\xNN`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, is_plain, f)
    }
}

/// Appends what [`Escaped`] shows: most bytes need no formatter.
pub fn push_escaped(bytes: &[u8], text: &mut String) {
    match str::from_utf8(bytes) {
        Ok(plain) if plain.bytes().all(is_plain) => text.push_str(plain),
        // Writing to a string cannot fail.
        _ => drop(fmt::write(text, format_args!("{}", Escaped(bytes)))),
    }
}

/// Text of our own, shown so that it can do no harm to a terminal whatever has got into it: like
/// [`Escaped`], but a backslash is left as it is.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0.as_bytes(), |byte| is_plain(byte) || byte == b'\\', f)
    }
}

/// Whether [`Escaped`] shows a byte as it is.
#[must_use]
pub fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

/// Most bytes need no escape: what stands before one that does is written in one piece.
fn escape(bytes: &[u8], is_plain: impl Fn(u8) -> bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for piece in bytes.split_inclusive(|byte| !is_plain(*byte)) {
        let (plain, odd) = match piece.split_last() {
            Some((last, before)) if !is_plain(*last) => (before, Some(*last)),
            _ => (piece, None),
        };
        f.write_str(str::from_utf8(plain).map_err(|_| fmt::Error)?)?;
        match odd {
            None => {}
            Some(b'\\') => f.write_str("\\\\")?,
            Some(byte) => write!(f, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

/// Serializes a name for people and programs: its kind, its own bytes as text (lossy, for
/// reading) and in hexadecimal digits (exact, for using).
///
/// # Errors
/// The serializer's.
pub fn exact<S: Serializer>(name: &UnixName, serializer: S) -> Result<S::Ok, S::Error> {
    let kind = match name {
        UnixName::Unnamed => "unnamed",
        UnixName::Pathname(_) => "pathname",
        UnixName::Abstract(_) => "abstract",
    };
    let bytes = name.as_bytes();
    let mut fields = serializer.serialize_struct("UnixName", 3)?;
    fields.serialize_field("kind", kind)?;
    fields.serialize_field("text", &String::from_utf8_lossy(bytes))?;
    fields.serialize_field("hex", &Hex(bytes))?;
    fields.end()
}

/// A name that serializes as [`exact`] does.
#[derive(Clone, Copy, Debug)]
pub struct Exact<'a>(pub &'a UnixName);

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        exact(self.0, serializer)
    }
}

/// Bytes as hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes that serialize as text (lossy, for reading) and as hexadecimal digits (exact, for using).
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Bytes", 2)?;
        fields.serialize_field("text", &String::from_utf8_lossy(self.0))?;
        fields.serialize_field("hex", &Hex(self.0))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_through_sun_path() {
        let longest = vec![b'p'; SUN_PATH_MAX];
        for (bytes, name) in [
            (&b""[..], UnixName::Unnamed),
            (b"/run/x.sock\0", UnixName::Pathname(b"/run/x.sock".to_vec())),
            (b"relative", UnixName::Pathname(b"relative".to_vec())),
            (b"\0a\0\n\xff", UnixName::Abstract(b"a\0\n\xff".to_vec())),
            (b"\0", UnixName::Abstract(Vec::new())),
            (longest.as_slice(), UnixName::Pathname(longest.clone())),
        ] {
            assert_eq!(UnixName::from_sun_path(bytes), name);
            assert_eq!(UnixName::from_sun_path(&name.to_sun_path()), name);
            assert!(name.is_possible());
        }
    }

    #[test]
    fn impossible_names_are_known() {
        assert!(!UnixName::Pathname(Vec::new()).is_possible());
        assert!(!UnixName::Pathname(b"a\0b".to_vec()).is_possible());
        assert!(!UnixName::Pathname(vec![b'x'; 109]).is_possible());
        assert!(!UnixName::Abstract(vec![b'x'; 108]).is_possible());
    }

    #[test]
    fn shown_names_are_one_safe_line_and_cannot_be_mistaken() {
        let shown = |name: UnixName| name.to_string();
        assert_eq!(shown(UnixName::Unnamed), "-");
        assert_eq!(shown(UnixName::Abstract(b"a\0b\n\xff\\".to_vec())), "@a\\x00b\\x0a\\xff\\\\");
        assert_eq!(shown(UnixName::Pathname(b"@x".to_vec())), "\\x40x");
        assert_eq!(shown(UnixName::Pathname(b"-".to_vec())), "\\x2d");
        assert_eq!(shown(UnixName::Pathname(b"-x".to_vec())), "-x");
        assert_eq!(shown(UnixName::Pathname(b"\x1b[2J".to_vec())), "\\x1b[2J");
    }

    #[test]
    fn text_of_our_own_is_safe_as_well() {
        assert_eq!(OneLine("a\\x2d b\n\x1b…").to_string(), "a\\x2d b\\x0a\\x1b\\xe2\\x80\\xa6");
    }
}
