//! From a `struct page` to the address that its content has.
//!
//! Where the kernel keeps its array of pages, and where it maps all memory, is chosen anew at each boot,
//! and no symbol tells unless the kernel was built to. But both begin at a multiple of 1 GiB (x86-64:
//! `kernel_randomize_memory`), so that address and page differ by one constant, which is found by
//! looking for a page whose content we know.

use super::{Memory, MemoryError, long};

const GIB: u64 = 1 << 30;

/// How far around the page's own message its content is looked for, in GiB: the kernel allocates both from
/// the same memory.
const REACH: u64 = 4096;

/// Size of a page in bytes; another one is not looked for.
const PAGE: u64 = 4096;

/// What it takes to compute an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    factor: u64,
    constant: u64,
}

impl Pages {
    /// Looks for the content of a page; `near` is some address in the map of all memory.
    pub(super) fn find(
        memory: &Memory,
        page: u64,
        offset: u64,
        content: &[u8],
        near: u64,
    ) -> Result<Option<Self>, MemoryError> {
        let size = long(memory.layout.page);
        if size == 0 || !PAGE.is_multiple_of(size) {
            return Ok(None);
        }
        let factor = PAGE / size;
        let product = page.wrapping_mul(factor);
        let base = (near & !(GIB - 1)) | (product & (GIB - 1));
        let around = (0..REACH)
            .flat_map(|step| [base.wrapping_add(step * GIB), base.wrapping_sub((step + 1) * GIB)]);
        for address in around {
            match memory.read("a page", address.wrapping_add(offset), content.len()) {
                Ok(block) if block.bytes() == content => {
                    let constant = address.wrapping_sub(product);
                    return Ok(Some(Self { factor, constant }));
                }
                // Nothing is mapped there.
                Ok(_) | Err(MemoryError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The address of a page's first byte.
    pub(super) fn address(self, page: u64) -> u64 {
        page.wrapping_mul(self.factor).wrapping_add(self.constant)
    }
}
