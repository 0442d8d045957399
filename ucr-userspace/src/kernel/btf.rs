//! Reads BTF, as far as it takes to find members in structures and to compare prototypes.
//!
//! aya reads BTF too, but keeps its type table to itself. The format is that of
//! `Documentation/bpf/btf.rst`.

mod names;

use std::{ops::Range, path::Path, sync::OnceLock};

use self::names::Index;
use crate::sys::types::{Bytes, KERNEL_BTF};

const HEADER_MAGIC: u16 = 0xeb9f;

/// Kinds whose layout matters here (`BTF_KIND_*`, `include/uapi/linux/btf.h`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FORWARD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why BTF could not be read, or does not hold what was looked for.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("read {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not BTF, or end in the middle of a type.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// No such structure.
    #[error("the kernel has no struct {0}")]
    NoStruct(String),
    /// No such member.
    #[error("struct {container} has no member {member} (of {path})")]
    NoMember {
        /// Structure it was looked for in.
        container: String,
        /// The component of the path that is missing.
        member: String,
        /// The whole path.
        path: String,
    },
    /// The member does not begin at a byte.
    #[error("struct {container}: {path} is a bit field")]
    BitField {
        /// Structure.
        container: String,
        /// Path.
        path: String,
    },
}

/// A type table.
#[derive(Debug)]
pub struct Btf {
    data: Bytes,
    strings: usize,
    /// Where each type begins in `data`; type 0 is void and begins nowhere.
    types: Vec<u32>,
    /// Made when the first one is looked for.
    structs: OnceLock<Index>,
}

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    /// [`BtfError::Read`] where the kernel has no BTF, [`BtfError::Malformed`] if it makes no sense.
    pub fn of_kernel() -> Result<Self, BtfError> {
        let data = Bytes::of_kernel()
            .map_err(|source| BtfError::Read { path: KERNEL_BTF.to_owned(), source })?;
        Self::of(data)
    }

    /// From a file.
    ///
    /// # Errors
    /// As [`Btf::of_kernel`].
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data = std::fs::read(path)
            .map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::parse(data)
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`BtfError::Malformed`].
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        Self::of(Bytes::Read(data))
    }

    fn of(data: Bytes) -> Result<Self, BtfError> {
        let short = || BtfError::Malformed("it ends in its header");
        if data.get(..2) != Some(HEADER_MAGIC.to_ne_bytes().as_slice()) {
            return Err(BtfError::Malformed("no BTF magic"));
        }
        let word = |at: usize| read_word(&data, at).map(to_usize).ok_or_else(short);
        let (header, types_at, types_len, strings_at) = (word(4)?, word(8)?, word(12)?, word(16)?);
        let begin = header.saturating_add(types_at);
        let end = begin.saturating_add(types_len);
        let strings = header.saturating_add(strings_at);
        if end > data.len() || strings > data.len() {
            return Err(BtfError::Malformed("its sections lie outside of it"));
        }
        let mut types = vec![0];
        let mut at = begin;
        while at < end {
            let inside = || BtfError::Malformed("it ends inside a type");
            types.push(u32::try_from(at).map_err(|_| BtfError::Malformed("it is too long"))?);
            at += 12 + trailer(read_word(&data, at + 4).ok_or_else(inside)?);
        }
        let btf = Self { data, strings, types, structs: OnceLock::new() };
        if at == end { Ok(btf) } else { Err(BtfError::Malformed("it ends inside a type")) }
    }

    /// As it was read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// How many types there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len() - 1
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a function of this name. (That does not prove that it can be attached to.)
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    /// Whether there is a tracepoint of this name (a `btf_trace_NAME` typedef).
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.first(kind::TYPEDEF, format!("btf_trace_{name}").as_bytes()).is_some()
    }

    /// The number of a function's type.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.first(kind::FUNC, name.as_bytes())
    }

    /// How many parameters a function has.
    #[must_use]
    pub fn parameter_count(&self, function: &str) -> Option<u32> {
        let prototype = self.referred(self.function(function)?)?;
        (self.kind(prototype)? == kind::FUNC_PROTO).then(|| self.vlen(prototype))?
    }

    /// A function's prototype as C writes it, without parameter names: `int (struct sock *, int)`. What
    /// is const or volatile is not told.
    #[must_use]
    pub fn prototype(&self, function: &str) -> Option<String> {
        let prototype = self.referred(self.function(function)?)?;
        if self.kind(prototype)? != kind::FUNC_PROTO {
            return None;
        }
        let begin = self.begin(prototype)? + 12;
        let parameters: Option<Vec<String>> = (0..to_usize(self.vlen(prototype)?))
            .map(|index| self.spell(read_word(&self.data, begin + index * 8 + 4)?, 0))
            .collect();
        Some(format!("{} ({})", self.spell(self.referred(prototype)?, 0)?, parameters?.join(", ")))
    }

    /// A type as C writes it.
    fn spell(&self, id: u32, depth: u32) -> Option<String> {
        if id == 0 {
            return Some("void".to_owned());
        }
        // Bounded: a forged table could go in circles.
        if depth > 16 {
            return None;
        }
        let name = || Some(String::from_utf8_lossy(self.name(id)?).into_owned());
        Some(match self.kind(id)? {
            kind::PTR => {
                let to = self.spell(self.referred(id)?, depth + 1)?;
                if to.ends_with('*') { format!("{to}*") } else { format!("{to} *") }
            }
            kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                self.spell(self.referred(id)?, depth + 1)?
            }
            kind::STRUCT => format!("struct {}", name()?),
            kind::UNION => format!("union {}", name()?),
            kind::FORWARD => {
                let union = self.info(id)? >> 31 == 1;
                format!("{} {}", if union { "union" } else { "struct" }, name()?)
            }
            kind::ENUM | kind::ENUM64 => format!("enum {}", name()?),
            kind::FUNC_PROTO => "function".to_owned(),
            _ => name()?,
        })
    }

    /// Byte offset of a member given by a path like `__sk_common.skc_cookie`; anonymous members
    /// are looked through.
    ///
    /// # Errors
    /// [`BtfError::NoStruct`], [`BtfError::NoMember`], [`BtfError::BitField`].
    pub fn offset(&self, container: &str, path: &str) -> Result<u64, BtfError> {
        self.find(container, path).map(|(at, _)| at)
    }

    /// Offset and type of a member.
    fn find(&self, container: &str, path: &str) -> Result<(u64, u32), BtfError> {
        let (bits, id) = self.locate(container, path)?;
        if bits.is_multiple_of(8) {
            Ok((bits / 8, id))
        } else {
            Err(BtfError::BitField { container: container.to_owned(), path: path.to_owned() })
        }
    }

    /// Offset in bits, and type, of a member.
    fn locate(&self, container: &str, path: &str) -> Result<(u64, u32), BtfError> {
        let mut id =
            self.structure(container).ok_or_else(|| BtfError::NoStruct(container.to_owned()))?;
        let mut bits = 0_u64;
        for member in path.split('.') {
            let (offset, of) =
                self.member(id, member.as_bytes(), 0).ok_or_else(|| BtfError::NoMember {
                    container: container.to_owned(),
                    member: member.to_owned(),
                    path: path.to_owned(),
                })?;
            bits += offset;
            id = of;
        }
        Ok((bits, id))
    }

    /// Size of a structure in bytes.
    ///
    /// # Errors
    /// [`BtfError::NoStruct`].
    pub fn size_of(&self, container: &str) -> Result<u64, BtfError> {
        let size = self.structure(container).and_then(|id| self.referred(id));
        size.map(u64::from).ok_or_else(|| BtfError::NoStruct(container.to_owned()))
    }

    /// Where a member lies in a structure, in bytes; as in [`offset`](Self::offset).
    ///
    /// # Errors
    /// As of [`offset`](Self::offset); a member whose size is not told is none.
    pub fn extent(&self, container: &str, path: &str) -> Result<Range<u64>, BtfError> {
        let (at, id) = self.find(container, path)?;
        let size = self.size(id, 0).ok_or_else(|| BtfError::NoMember {
            container: container.to_owned(),
            member: path.to_owned(),
            path: path.to_owned(),
        })?;
        Ok(at..at + size)
    }

    /// The bytes that a member shares with others at most: all of its own, or the one that a bit field begins in.
    ///
    /// # Errors
    /// As of [`extent`](Self::extent), but a bit field is none.
    pub fn bytes_with(&self, container: &str, path: &str) -> Result<Range<u64>, BtfError> {
        match self.extent(container, path) {
            Err(BtfError::BitField { .. }) => {
                let (bits, _) = self.locate(container, path)?;
                Ok(bits / 8..bits / 8 + 1)
            }
            result => result,
        }
    }

    /// Size of a type in bytes; `None` if it has none.
    fn size(&self, id: u32, depth: u32) -> Option<u64> {
        let id = self.without_qualifiers(id);
        // Bounded: a forged table could go in circles.
        if depth > 16 {
            return None;
        }
        match self.kind(id)? {
            kind::PTR => Some(8),
            kind::ARRAY => {
                let begin = self.begin(id)? + 12;
                let element = self.size(read_word(&self.data, begin)?, depth + 1)?;
                element.checked_mul(read_word(&self.data, begin + 8)?.into())
            }
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => {
                self.referred(id).map(u64::from)
            }
            _ => None,
        }
    }

    /// Bit offset and type of a member, also inside anonymous members.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u64, u32)> {
        let id = self.without_qualifiers(id);
        if depth > 16 || !matches!(self.kind(id)?, kind::STRUCT | kind::UNION) {
            return None;
        }
        let begin = self.begin(id)?;
        let has_bit_fields = read_word(&self.data, begin + 4)? >> 31 == 1;
        for index in 0..to_usize(self.vlen(id)?) {
            let at = begin + 12 + index * 12;
            let of = read_word(&self.data, at + 4)?;
            let position = read_word(&self.data, at + 8)?;
            let offset = u64::from(if has_bit_fields { position & 0xff_ffff } else { position });
            let named = name_at(&self.data, self.strings, to_usize(read_word(&self.data, at)?))?;
            if named == name {
                return Some((offset, of));
            }
            if named.is_empty()
                && let Some((inner, of)) = self.member(of, name, depth + 1)
            {
                return Some((offset + inner, of));
            }
        }
        None
    }

    /// Strips typedefs and qualifiers.
    fn without_qualifiers(&self, mut id: u32) -> u32 {
        // Bounded: a forged table could go in circles.
        for _ in 0..32 {
            match (self.kind(id), self.referred(id)) {
                (
                    Some(
                        kind::TYPEDEF
                        | kind::VOLATILE
                        | kind::CONST
                        | kind::RESTRICT
                        | kind::TYPE_TAG,
                    ),
                    Some(of),
                ) => id = of,
                _ => break,
            }
        }
        id
    }

    fn info(&self, id: u32) -> Option<u32> {
        read_word(&self.data, self.begin(id)? + 4)
    }

    fn kind(&self, id: u32) -> Option<u32> {
        self.info(id).map(|info| info >> 24 & 0x1f)
    }

    fn vlen(&self, id: u32) -> Option<u32> {
        self.info(id).map(|info| info & 0xffff)
    }

    fn referred(&self, id: u32) -> Option<u32> {
        read_word(&self.data, self.begin(id)? + 8)
    }

    /// Where a type begins in the data.
    fn begin(&self, id: u32) -> Option<usize> {
        self.types.get(to_usize(id)).filter(|_| id != 0).copied().map(to_usize)
    }
}

/// Bytes behind the common part of a type, by its `info`.
fn trailer(info: u32) -> usize {
    let vlen = to_usize(info & 0xffff);
    match info >> 24 & 0x1f {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => vlen * 12,
        kind::ENUM | kind::FUNC_PROTO => vlen * 8,
        _ => 0,
    }
}

fn read_word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn name_at(data: &[u8], strings: usize, offset: usize) -> Option<&[u8]> {
    let rest = data.get(strings.checked_add(offset)?..)?;
    rest.iter().position(|b| *b == 0).and_then(|end| rest.get(..end))
}

fn to_usize(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_types_are_read() {
        let btf = Btf::of_kernel().expect("this machine's kernel has BTF");
        assert!(btf.len() > 10_000);
        assert_eq!(btf.offset("sock", "__sk_common").expect("first member"), 0);
        assert_eq!(btf.offset("list_head", "prev").expect("second pointer"), 8);
        assert_eq!(btf.size_of("list_head").expect("two pointers"), 16);
        let extent = |path| btf.extent("sock", path).expect("a member");
        assert_eq!(extent("__sk_common.skc_family").count(), 2);
        assert_eq!(extent("sk_receive_queue.next").count(), 8);
        assert_eq!(extent("sk_peer_cred").start, btf.offset("sock", "sk_peer_cred").expect("it"));
        assert_eq!(btf.extent("sockaddr_un", "sun_path").expect("an array").count(), 108);
        assert!(btf.has_function("unix_stream_connect"));
        assert!(btf.has_tracepoint("sys_enter"));
        assert_eq!(btf.prototype("unix_shutdown").as_deref(), Some("int (struct socket *, int)"));
        assert_eq!(btf.parameter_count("unix_shutdown"), Some(2));
        assert_eq!(btf.prototype("nonesuch"), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let btf = Btf::of_kernel().expect("this machine's kernel has BTF");
        let shown = |r: Result<u64, BtfError>| r.expect_err("must fail").to_string();
        assert_eq!(shown(btf.offset("nonesuch", "x")), "the kernel has no struct nonesuch");
        assert_eq!(
            shown(btf.offset("sock", "__sk_common.nonesuch")),
            "struct sock has no member nonesuch (of __sk_common.nonesuch)"
        );
    }

    #[test]
    fn damaged_bytes_are_refused() {
        assert!(Btf::parse(Vec::new()).is_err());
        assert!(Btf::parse(vec![0; 64]).is_err());
        let mut data = std::fs::read(KERNEL_BTF).expect("this machine's kernel has BTF");
        data.truncate(data.len() / 2);
        assert!(Btf::parse(data).is_err());
    }
}
