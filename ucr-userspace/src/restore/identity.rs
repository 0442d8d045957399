//! Calls made under other effective ids, so that `SO_PEERCRED` shows the saved ones.
//!
//! `SO_PEERCRED` reports the *effective* ids of the task that called `listen`, `connect` or
//! `socketpair`, and `SO_PEERGROUPS` its supplementary groups. `connect` also checks the permission to
//! write to the socket file, with the *file system* ids, which follow the effective ones; and a change
//! of the effective uid from 0 clears the effective capabilities (`cap_task_fix_setuid`). So the file
//! system ids are set back at once: for uid 0 that also raises the file system capabilities again, and
//! permissions are checked as if nothing had changed. These calls act on the calling thread alone.

use std::io;

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};
use rustix::process::getgroups;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::plan::step::Identity;

/// The ids of this thread between calls, asked for once: each call ends with those that it began with.
#[derive(Debug, Default)]
pub struct Own(Option<(u32, u32, Vec<u32>)>);

impl Own {
    /// The supplementary groups, in ascending order.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn groups(&mut self) -> io::Result<&[u32]> {
        self.ids().map(|(_, _, groups)| groups.as_slice())
    }

    fn ids(&mut self) -> io::Result<&(u32, u32, Vec<u32>)> {
        let ids = match self.0.take() {
            Some(known) => known,
            None => (geteuid().as_raw(), getegid().as_raw(), own_groups()?),
        };
        Ok(self.0.insert(ids))
    }

    fn is_already(&mut self, wanted: &Identity) -> io::Result<bool> {
        let (uid, gid, groups) = self.ids()?;
        let is_in_them = |wanted: &Vec<u32>| wanted == groups || same_groups(wanted, groups);
        Ok((*uid, *gid) == (wanted.uid, wanted.gid)
            && wanted.groups.as_ref().is_none_or(is_in_them))
    }
}

/// Other effective ids, until it is dropped or left.
#[derive(Debug)]
#[must_use]
pub struct Assumed {
    ids: Option<(u32, u32)>,
    groups: Option<Vec<u32>>,
}

/// Asks for nothing: an id of -1 changes nothing and returns the present one.
fn file_system_ids() -> (Uid, Gid) {
    (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)))
}

fn set_effective_uid(uid: u32) -> io::Result<()> {
    Ok(set_thread_res_uid(None, rustix::process::Uid::from_raw(uid), None)?)
}

fn set_effective_gid(gid: u32) -> io::Result<()> {
    Ok(set_thread_res_gid(None, rustix::process::Gid::from_raw(gid), None)?)
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<_> =
        groups.iter().map(|group| rustix::process::Gid::from_raw(*group)).collect();
    Ok(set_thread_groups(&groups)?)
}

/// The supplementary groups of this thread, in ascending order.
///
/// # Errors
///
/// The kernel's.
pub fn own_groups() -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = getgroups()?.into_iter().map(rustix::process::Gid::as_raw).collect();
    groups.sort_unstable();
    Ok(groups)
}

/// Whether two lists are the same groups.
#[must_use]
pub fn same_groups(a: &[u32], b: &[u32]) -> bool {
    let sorted = |list: &[u32]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    sorted(a) == sorted(b)
}

impl Assumed {
    /// Takes these ids and groups if they differ from the present ones.
    ///
    /// # Errors
    ///
    /// `EPERM` without the right to (`CAP_SETUID`, `CAP_SETGID`); then nothing is changed.
    pub fn enter(wanted: Option<&Identity>, own: &mut Own) -> io::Result<Self> {
        let mut assumed = Self { ids: None, groups: None };
        let Some(wanted) = wanted else { return Ok(assumed) };
        if own.is_already(wanted)? {
            return Ok(assumed);
        }
        // The right to change groups goes with the user, so that they come first. From here on dropping
        // undoes.
        if let Some(groups) = &wanted.groups {
            let before = own_groups()?;
            if !same_groups(groups, &before) {
                set_groups(groups)?;
                assumed.groups = Some(before);
            }
        }
        let before = (geteuid().as_raw(), getegid().as_raw());
        if before == (wanted.uid, wanted.gid) {
            return Ok(assumed);
        }
        let (fsuid, fsgid) = file_system_ids();
        assumed.ids = Some(before);
        set_effective_gid(wanted.gid)?;
        set_effective_uid(wanted.uid)?;
        setfsgid(fsgid);
        setfsuid(fsuid);
        if file_system_ids() != (fsuid, fsgid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(assumed)
    }

    /// Takes the ids of before.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; it can hardly: the ids of before are still the real or saved ones.
    pub fn leave(mut self) -> io::Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> io::Result<()> {
        if let Some((uid, gid)) = self.ids.take() {
            set_effective_uid(uid)?;
            set_effective_gid(gid)?;
        }
        self.groups.take().map_or(Ok(()), |groups| set_groups(&groups))
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            tracing::error!(%error, "failed to return to the effective ids of before");
        }
    }
}
