//! Calls made under other effective ids, so that `SO_PEERCRED` shows the saved ones.
//!
//! `SO_PEERCRED` reports the *effective* ids of the task that called `listen`, `connect` or
//! `socketpair`. `connect` also checks the permission to write to the socket file, with the *file
//! system* ids, which follow the effective ones; and a change of the effective uid from 0 clears
//! the effective capabilities (`cap_task_fix_setuid`). So the file system ids are set back at once:
//! for uid 0 that also raises the file system capabilities again, and permissions are checked as if
//! nothing had changed. These calls act on the calling thread alone.

use std::io;

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::plan::step::Identity;

/// Other effective ids, until it is dropped or left.
#[derive(Debug)]
#[must_use]
pub struct Assumed {
    before: Option<Identity>,
}

fn current() -> Identity {
    Identity { uid: geteuid().as_raw(), gid: getegid().as_raw() }
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

impl Assumed {
    /// Takes these ids if they differ from the present ones.
    ///
    /// # Errors
    ///
    /// `EPERM` without the right to (`CAP_SETUID`, `CAP_SETGID`); then nothing is changed.
    pub fn enter(wanted: Option<Identity>) -> io::Result<Self> {
        let before = current();
        let Some(wanted) = wanted.filter(|wanted| *wanted != before) else {
            return Ok(Self { before: None });
        };
        let (fsuid, fsgid) = file_system_ids();
        // The group first: the right to change it goes with the user. From here on dropping undoes.
        let assumed = Self { before: Some(before) };
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
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        set_effective_uid(before.uid)?;
        set_effective_gid(before.gid)
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            tracing::error!(%error, "failed to return to the effective ids of before");
        }
    }
}
