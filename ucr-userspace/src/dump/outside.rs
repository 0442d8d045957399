//! Who else holds a socket: one pass over the descriptors of every process, made only once
//! somebody asks.

use foldhash::HashMap;

use super::{assemble::Outside, obstacle::Party};
use crate::{
    model::Pid,
    process::procfs,
    snapshot::descriptors::{DescriptorError, Lister},
};

/// The holders of every socket of the machine.
pub(super) struct Others<'a> {
    lister: &'a mut Lister,
    holders: Option<HashMap<u64, Vec<(Pid, u32)>>>,
    failed: Option<DescriptorError>,
}

impl<'a> Others<'a> {
    pub(super) fn new(lister: &'a mut Lister) -> Self {
        Self { lister, holders: None, failed: None }
    }

    /// Ends the asking.
    ///
    /// # Errors
    /// The pass failed: the answers were incomplete.
    pub(super) fn finish(self) -> Result<(), DescriptorError> {
        self.failed.map_or(Ok(()), Err)
    }
}

impl Outside for Others<'_> {
    fn holders(&mut self, inode: u32) -> Vec<Party> {
        let (lister, failed) = (&mut self.lister, &mut self.failed);
        let holders = self.holders.get_or_insert_with(|| {
            let mut holders: HashMap<u64, Vec<(Pid, u32)>> = HashMap::default();
            match lister.all_sockets() {
                Ok(descriptors) => {
                    for d in descriptors {
                        let holder = (Pid(d.pid.cast_signed()), d.fd);
                        holders.entry(d.socket.inode).or_default().push(holder);
                    }
                }
                Err(error) => *failed = Some(error),
            }
            holders
        });
        let found = holders.get(&u64::from(inode)).map(Vec::as_slice).unwrap_or_default();
        found
            .iter()
            .map(|(pid, fd)| {
                // It may have ended since.
                let comm = procfs::comm(*pid).unwrap_or_else(|_| b"?".to_vec());
                Party::new(*pid, &comm, *fd)
            })
            .collect()
    }
}
