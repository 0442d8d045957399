//! What the daemon may still do once everything is opened and attached: what it needs for the passes of
//! iterators, and nothing else.
//!
//! Not kept, although one could think so: `CAP_DAC_READ_SEARCH` (owners of sockets come from an
//! iterator, and what is read of `/proc/PID` is open to all or asks for `CAP_SYS_PTRACE`),
//! `CAP_DAC_OVERRIDE` (database, socket and pins are root's), `CAP_NET_ADMIN` (`sock_diag` tells of unix
//! sockets without), `CAP_SYS_RESOURCE` (since Linux 5.11 maps are not charged to a limit).

use std::{fmt, io};

use rustix::{
    fs::Mode,
    io::Errno,
    process::{Resource, Rlimit, setrlimit, umask},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

use crate::{
    model::Pid,
    process::procfs::{self, ProcError},
};

/// A capability that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name (`capabilities(7)`).
    pub name: &'static str,
    /// Its bit.
    pub set: CapabilitySet,
    /// What becomes of the daemon without it.
    pub need: Need,
    /// What it is kept for.
    pub reason: &'static str,
}

/// What becomes of the daemon without a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It does not run, unless it has `CAP_SYS_ADMIN`, which the kernel takes as well (`bpf_capable`,
    /// `perfmon_capable`).
    Required,
    /// It runs, and misses something.
    Useful {
        /// What.
        without: &'static str,
    },
}

/// All that is kept. The systemd unit has the same ones.
pub const KEPT: [Capability; 4] = [
    Capability {
        name: "CAP_BPF",
        set: CapabilitySet::BPF,
        need: Need::Required,
        reason: "to read and correct the ledger, and to load the iterators that do",
    },
    Capability {
        name: "CAP_PERFMON",
        set: CapabilitySet::PERFMON,
        need: Need::Required,
        reason: "for iterators that read kernel memory",
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        set: CapabilitySet::SYS_ADMIN,
        // `unix_iter` sees the network namespace of the task that opens it, and an iterator takes no
        // other one (`bpf_iter_init_seq_net`): there is no way but `setns`.
        need: Need::Useful { without: "sockets of other network namespaces than its own" },
        reason: "to enter other network namespaces, since an iterator sees only its opener's",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        set: CapabilitySet::SYS_PTRACE,
        // `proc_ns_get_link` asks `ptrace_may_access`, which wants all capabilities of its target
        // where this one is missing.
        need: Need::Useful {
            without: "namespaces, programs and files of processes that are not its own",
        },
        reason: "to follow the links of /proc/PID (ns/net, exe, root) of other users' processes",
    },
];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What the process has now: effective and permitted.
    pub held: CapabilitySet,
    /// What it was to keep and did not have, and misses.
    pub missing: Vec<&'static Capability>,
    /// What stayed in the bounding set on top, since `CAP_SETPCAP` was missing. Of no use to anybody
    /// without executing a program.
    pub left_in_bounding_set: CapabilitySet,
}

/// Privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The daemon cannot do its work.
    #[error("{} is missing ({})", .0.name, .0.reason)]
    Missing(&'static Capability),
    /// Capabilities belong to threads: others would keep theirs.
    #[error("give up privileges: {0} threads run already")]
    Threads(usize),
    /// Our threads could not be counted.
    #[error("give up privileges")]
    Count(#[from] ProcError),
    /// The kernel refused something.
    #[error("give up privileges: {step}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Gives up all capabilities but these, and the way back to them; new files are for us only, and no core
/// is dumped, which would hold what all users did.
///
/// To be called before any thread is started, as capabilities belong to threads.
///
/// # Errors
/// See [`PrivilegeError`]. If a required capability is missing, nothing has been changed.
pub fn drop_privileges(keep: &'static [Capability]) -> Result<Kept, PrivilegeError> {
    let own = Pid(rustix::process::getpid().as_raw_nonzero().get());
    match procfs::threads(own)?.len() {
        1 => {}
        threads => return Err(PrivilegeError::Threads(threads)),
    }
    let kept = drop_of_thread(keep)?;
    limit_process()?;
    Ok(kept)
}

/// The part that belongs to the process.
fn limit_process() -> Result<(), PrivilegeError> {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(refused("allow no core dump"))
}

/// The part that belongs to the calling thread, and to those that it starts from then on.
fn drop_of_thread(keep: &'static [Capability]) -> Result<Kept, PrivilegeError> {
    let had = capabilities(None).map_err(refused("read the capabilities"))?.permitted;
    let missing: Vec<&Capability> = keep
        .iter()
        .filter(|capability| !had.contains(capability.set))
        // Checked first, by the kernel as by us.
        .filter(|capability| {
            capability.need != Need::Required || !had.contains(CapabilitySet::SYS_ADMIN)
        })
        .collect();
    if let Some(capability) = missing.iter().find(|missing| missing.need == Need::Required) {
        return Err(PrivilegeError::Missing(capability));
    }
    let wanted = keep.iter().fold(CapabilitySet::empty(), |all, one| all | one.set);
    let held = wanted & had;
    // Before the capabilities go, since this takes one of them.
    let left_in_bounding_set = narrow_bounding_set(wanted)?;
    clear_ambient_capability_set().map_err(refused("clear the ambient set"))?;
    let sets =
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(refused("drop capabilities"))?;
    set_no_new_privs(true).map_err(refused("forbid new privileges"))?;
    Ok(Kept { held, missing, left_in_bounding_set })
}

/// Removes all others from the bounding set; returns what could not be removed for want of `CAP_SETPCAP`.
fn narrow_bounding_set(wanted: CapabilitySet) -> Result<CapabilitySet, PrivilegeError> {
    let mut left = CapabilitySet::empty();
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            // Beyond the kernel's last one.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(refused("read the bounding set")(errno)),
            Ok(false) => continue,
            Ok(true) if wanted.contains(capability) => continue,
            Ok(true) => {}
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::PERM) => left |= capability,
            Err(errno) => return Err(refused("narrow the bounding set")(errno)),
        }
    }
    Ok(left)
}

fn refused(step: &'static str) -> impl Fn(Errno) -> PrivilegeError {
    move |errno| PrivilegeError::Refused { step, source: errno.into() }
}

/// The table, as the long help shows it: a line for each capability.
#[derive(Clone, Copy, Debug)]
pub struct Table(pub &'static [Capability]);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|capability| {
            let Capability { name, reason, need, .. } = capability;
            write!(f, "{name}: {reason}")?;
            match need {
                Need::Required => writeln!(f),
                Need::Useful { without } => writeln!(f, " (without it, it misses {without})"),
            }
        })
    }
}

#[cfg(test)]
mod tests;
