//! Who did something, as it is kept and sent.

use serde::{Deserialize, Serialize};
use ucr_common::identity::Actor;

/// The task behind an event. Numbers are those of the initial namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// cgroup v2 id: the inode number of its directory.
    pub cgroup: u64,
    /// The thread's name: any bytes.
    pub comm: Vec<u8>,
}

impl From<&Actor> for Who {
    fn from(actor: &Actor) -> Self {
        let Actor { cgroup, pid, tid, uid, gid, .. } = *actor;
        Self { pid, tid, uid, gid, cgroup, comm: actor.comm().to_vec() }
    }
}
