//! Finds types by their names, of which there are a hundred thousand and only some dozens are asked for.

use std::hash::BuildHasher as _;

use foldhash::{HashMap, HashMapExt as _, fast::FixedState};
use memchr::memmem;

use super::{Btf, kind, name_at, read_word, to_usize};

/// The first structure of each name, by the hash of the name.
pub(super) type Index = HashMap<u64, u32>;

fn hash(name: &[u8]) -> u64 {
    FixedState::default().hash_one(name)
}

impl Btf {
    /// The first structure of a name. Many are asked for, so there is an index.
    pub(super) fn structure(&self, name: &str) -> Option<u32> {
        let name = name.as_bytes();
        let index = self.structs.get_or_init(|| self.index_of_structures());
        let id = *index.get(&hash(name))?;
        // Another one may have the same hash.
        if self.name(id) == Some(name) { Some(id) } else { self.first(kind::STRUCT, name) }
    }

    fn index_of_structures(&self) -> Index {
        let mut index = Index::new();
        for id in self.ids().filter(|id| self.kind(*id) == Some(kind::STRUCT)) {
            if let Some(name) = self.name(id).filter(|name| !name.is_empty()) {
                index.entry(hash(name)).or_insert(id);
            }
        }
        index
    }

    /// The first type of a kind and name. The name is searched for as bytes, which is quicker than to look every
    /// type's name up.
    pub(super) fn first(&self, wanted: u32, name: &[u8]) -> Option<u32> {
        let strings = self.data.get(self.strings..)?;
        let mut ended = name.to_vec();
        ended.push(0);
        let places: Vec<usize> = memmem::find_iter(strings, &ended).collect();
        let is_it = |id: &u32| {
            self.kind(*id) == Some(wanted)
                && self.name_offset(*id).is_some_and(|at| places.contains(&to_usize(at)))
        };
        if places.is_empty() { None } else { self.ids().find(is_it) }
    }

    pub(super) fn name(&self, id: u32) -> Option<&[u8]> {
        name_at(&self.data, self.strings, to_usize(self.name_offset(id)?))
    }

    fn name_offset(&self, id: u32) -> Option<u32> {
        read_word(&self.data, self.begin(id)?)
    }

    /// All but void.
    fn ids(&self) -> impl Iterator<Item = u32> {
        (1..).take(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of types without a size or members: kind and name of each.
    fn table(types: &[(u32, &str)]) -> Btf {
        let mut strings = vec![0];
        let mut words = Vec::new();
        for (kind, name) in types {
            words.extend([u32::try_from(strings.len()).expect("short"), kind << 24, 0]);
            strings.extend(name.bytes().chain([0]));
        }
        let length = |bytes: usize| u32::try_from(bytes).expect("short");
        let (of_types, of_strings) = (length(words.len() * 4), length(strings.len()));
        let header = [0x0001_eb9f, 24, 0, of_types, of_types, of_strings];
        let mut bytes: Vec<u8> =
            header.into_iter().chain(words).flat_map(u32::to_ne_bytes).collect();
        bytes.extend(strings);
        Btf::parse(bytes).expect("a table")
    }

    #[test]
    fn the_first_of_a_kind_and_name_is_found() {
        let of_struct = |name| (kind::STRUCT, name);
        let btf = table(&[
            (kind::FUNC, "sock"),
            of_struct("unix_sock"),
            of_struct("sock"),
            of_struct("sock"),
            (kind::FUNC, "close"),
            (kind::TYPEDEF, "btf_trace_close"),
            (kind::FUNC, "close"),
        ]);
        assert_eq!((btf.structure("sock"), btf.function("sock")), (Some(3), Some(1)));
        assert_eq!((btf.structure("unix_sock"), btf.function("close")), (Some(2), Some(5)));
        assert!(btf.has_tracepoint("close") && !btf.has_tracepoint("sock"));
        for unknown in ["", "soc", "ock", "sockk", "close"] {
            assert_eq!(btf.structure(unknown), None, "{unknown}");
        }
        for unknown in ["", "lose", "unix_sock"] {
            assert_eq!(btf.function(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_mapped_is_what_is_read() {
        let mapped = Btf::of_kernel().expect("this machine's kernel has BTF");
        let read = std::fs::read(crate::sys::types::KERNEL_BTF).expect("the same");
        assert!(mapped.bytes() == read.as_slice(), "other bytes");
    }

    #[test]
    fn index_and_search_agree() {
        let btf = Btf::of_kernel().expect("this machine's kernel has BTF");
        for name in ["sock", "unix_sock", "file", "task_struct", "list_head", "nonesuch"] {
            assert_eq!(btf.structure(name), btf.first(kind::STRUCT, name.as_bytes()), "{name}");
        }
        assert!(btf.structure("sock").is_some() && btf.function("bpf_iter_unix").is_some());
    }
}
