//! Fills in the table of offsets that the eBPF programs take (`ucr_common::offsets`).

use ucr_common::offsets::{ABSENT, FIELDS, Need};

use super::btf::{Btf, BtfError};

/// One offset for each of [`FIELDS`], in that order: the memory image of
/// `ucr_common::offsets::Offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetTable(Vec<u64>);

impl OffsetTable {
    /// Looks every field up.
    ///
    /// # Errors
    /// The first required field that the kernel does not have.
    pub fn resolve(btf: &Btf) -> Result<Self, BtfError> {
        FIELDS
            .iter()
            .map(|field| match (btf.offset(field.container, field.path), field.need) {
                (Err(_), Need::Optional) => Ok(ABSENT),
                (result, _) => result,
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// As the programs' read-only data wants it.
    #[must_use]
    pub fn as_words(&self) -> &[u64] {
        &self.0
    }

    /// The offset of one field, if the kernel has it.
    #[must_use]
    pub fn get(&self, container: &str, path: &str) -> Option<u64> {
        let index = FIELDS.iter().position(|f| f.container == container && f.path == path)?;
        self.0.get(index).copied().filter(|offset| *offset != ABSENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_that_is_required() {
        let btf = Btf::of_kernel().expect("this machine's kernel has BTF");
        let table = OffsetTable::resolve(&btf).expect("every required field");
        assert_eq!(table.as_words().len(), FIELDS.len());
        let counts = ["f_count.counter", "f_ref.refcnt.counter"];
        let present = counts.iter().filter(|path| table.get("file", path).is_some()).count();
        assert_eq!(present, 1, "a file's references are counted in exactly one of {counts:?}");
    }
}
