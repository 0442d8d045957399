//! What can go wrong with tracing, and what to do about it.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

use rustix::thread::{CapabilitySet, capabilities};

use super::hooks::Backend;
use crate::{causes, kernel::btf::BtfError};

/// Why tracing could not be started, stopped or read.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    /// The kernel's types could not be read.
    #[error("find out the kernel's types")]
    Btf(#[from] BtfError),
    /// aya could not read the kernel's types.
    #[error("find out the kernel's types")]
    AyaBtf(#[from] aya::BtfError),
    /// The object was refused as a whole.
    #[error("load the eBPF object")]
    Load(#[source] EbpfError),
    /// One program was refused.
    #[error("load or attach eBPF program {program}")]
    Program {
        /// Its name in the object.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The object has no such program or map: it is not ours.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    /// A program was not to be attached.
    #[error("{program} was not to be attached")]
    LeftOut {
        /// Its name in the object.
        program: &'static str,
    },
    /// The kernel does not have what a program hangs on.
    #[error("this kernel has no {target} to attach to")]
    NoSuchPoint {
        /// Tracepoint or function.
        target: &'static str,
    },
    /// The kernel's function takes or returns something else than the program expects.
    #[error("this kernel's {target} is a {found}, for which there is no program")]
    OtherPrototype {
        /// The function.
        target: &'static str,
        /// Its prototype.
        found: String,
    },
    /// Tracing is attached with other programs than were asked for.
    #[error("tracing is attached with the {} backend, not with {}", attached.name(), wanted.name())]
    OtherBackend {
        /// What is attached.
        attached: Backend,
        /// What was asked for.
        wanted: Backend,
    },
    /// There is no program to be loaded.
    #[error("the snapshot backend keeps no state: there is nothing to attach")]
    NothingToAttach,
    /// A link could not be turned into a file or a pin.
    #[error("keep the link of eBPF program {program}")]
    Link {
        /// Its name in the object.
        program: &'static str,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// A pin could not be made.
    #[error("pin {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: PinError,
    },
    /// A map could not be opened, read or written.
    #[error("use eBPF map {map}")]
    Map {
        /// Its name in the object.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A file system operation failed.
    #[error("{operation} {path}")]
    Files {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Tracing is on already.
    #[error("tracing is attached already (pinned at {path})")]
    AlreadyAttached {
        /// The pin directory.
        path: PathBuf,
    },
    /// Tracing is off.
    #[error("tracing is not attached (nothing is pinned at {path})")]
    NotAttached {
        /// The pin directory.
        path: PathBuf,
    },
    /// There are pins, but not all of them: an attach was killed half-way.
    #[error("what is pinned at {path} is incomplete: {missing} is missing")]
    Incomplete {
        /// The pin directory.
        path: PathBuf,
        /// The first pin that is not there.
        missing: String,
    },
    /// The directory could have been filled by somebody else, so nothing in it is trusted.
    #[error("{path} is no pin directory of ours: {why}")]
    NotOurs {
        /// The pin directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody took the events over from us, because we had not renewed our lease.
    #[error("{}", superseded_by(*pid))]
    Superseded {
        /// Who; 0 if that one has ended as well.
        pid: u32,
    },
    /// The pins were made by another version of ucr.
    #[error("what is pinned at {path} is of version {found}, this ucr reads version {wanted}")]
    OtherVersion {
        /// The pin directory.
        path: PathBuf,
        /// Version of the shapes in the maps.
        found: u32,
        /// Ours.
        wanted: u32,
    },
    /// The directory is not on a bpf file system.
    #[error("{path} is not on a bpf file system")]
    NoBpfFileSystem {
        /// Where it should be.
        path: PathBuf,
    },
    /// Somebody else follows the events.
    #[error("process {pid} follows the events already")]
    Followed {
        /// Who.
        pid: u32,
    },
    /// A program that is run when somebody asks failed.
    #[error("run eBPF program {program}")]
    Pass {
        /// Its name in the object.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else has been running such programs for too long.
    #[error("somebody else asks by the programs at {path}, and does not come to an end")]
    Occupied {
        /// Where they are pinned.
        path: PathBuf,
    },
    /// A search has found more than it has room for.
    #[error("{found} more sockets were found than there is room for")]
    TooMany {
        /// How many more.
        found: u64,
    },
    /// The seeding pass failed.
    #[error("visit the unix sockets of network namespace {netns}")]
    Seed {
        /// Which (a path under `/proc`).
        netns: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl TracerError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        if self.is_permission() && !may_load() {
            return Some(
                "run it as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN and CAP_SYS_PTRACE",
            );
        }
        match self {
            Self::Program { .. } if causes::errno(self) == Some(libc::EPERM) => Some(
                "this kernel forbids such programs; `ucr features` says which backend it allows",
            ),
            Self::Btf(BtfError::Read { .. }) | Self::AyaBtf(_) => {
                Some("this kernel publishes no BTF: it needs CONFIG_DEBUG_INFO_BTF")
            }
            Self::AlreadyAttached { .. } => {
                Some("`ucr status` shows it, `ucr detach` ends it, or name another --pin-dir")
            }
            Self::NotAttached { .. } => Some("`ucr attach` starts it"),
            Self::Incomplete { .. } | Self::OtherVersion { .. } => {
                Some("`ucr detach` clears it away, then `ucr attach` starts anew")
            }
            Self::NoBpfFileSystem { .. } => {
                Some("mount one: mount -t bpf -o mode=0700 bpf /sys/fs/bpf")
            }
            Self::NotOurs { .. } => Some("look at what it holds, or name another --pin-dir"),
            Self::NoSuchPoint { .. } | Self::OtherPrototype { .. } => {
                Some("`ucr features` says which backend this kernel has")
            }
            Self::OtherBackend { .. } => {
                Some("leave --backend out (and UCR_BACKEND), or `ucr detach` first")
            }
            Self::NothingToAttach => {
                Some("`ucr dump --backend snapshot` dumps without tracked state")
            }
            Self::Occupied { .. } => {
                Some("end it: a `ucr` that was stopped in the middle (`ps` shows it with state T)")
            }
            Self::Followed { .. } => Some("wait until it ends, or name another --pin-dir"),
            _ => None,
        }
    }

    /// Whether something has run out that another backend would need as well.
    #[must_use]
    pub fn is_exhaustion(&self) -> bool {
        matches!(causes::errno(self), Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE))
    }

    /// Whether the kernel said EPERM or EACCES, at whatever depth.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(causes::errno(self), Some(libc::EPERM | libc::EACCES))
    }
}

fn superseded_by(pid: u32) -> String {
    match pid {
        0 => "somebody else has followed the events meanwhile".to_owned(),
        pid => format!("process {pid} follows the events now"),
    }
}

/// Whether we have the right to load tracing programs at all.
pub fn may_load() -> bool {
    capabilities(None).is_ok_and(|sets| {
        sets.effective.contains(CapabilitySet::BPF | CapabilitySet::PERFMON)
            || sets.effective.contains(CapabilitySet::SYS_ADMIN)
    })
}
