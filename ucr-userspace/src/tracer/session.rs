//! Attaching, detaching, and the state of what is attached.

use std::process;

use aya::programs::links::{FdLink, PinnedLink};
use serde::Serialize;
use ucr_common::control::{Control, SHAPES};

use super::{
    TracerError,
    hooks::{Backend, Hook, Need, TRACEPOINT},
    object::{LogLevel, Object, Sizes},
    pins::{Mounted, PinDirectory},
    seed::{Seeded, seed},
    store::Store,
};
use crate::kernel::clock;

/// Tracing that lasts as long as this value.
pub struct Private {
    /// The maps.
    pub store: Store,
    /// The object, for its ring buffer and log.
    pub object: Object,
    /// What the seeding pass did.
    pub seeded: Seeded,
    _links: Vec<FdLink>,
}

/// What [`attach`] did.
#[derive(Debug)]
pub struct Attached {
    /// What the seeding pass did.
    pub seeded: Seeded,
    /// Sockets that it found.
    pub sockets: usize,
    /// Hooks that this kernel does not have.
    pub left_out: Vec<&'static str>,
    /// Whether the bpf file system had to be mounted.
    pub mounted: Mounted,
}

/// What is attached. Times are `CLOCK_BOOTTIME` nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// How the ledger is filled.
    pub backend: Backend,
    /// Since when.
    pub attached_at: u64,
    /// By which process.
    pub attached_by: u32,
    /// Programs whose links are pinned.
    pub hooks: Vec<String>,
    /// Hooks that are not attached, since this kernel does not have them.
    pub left_out: Vec<&'static str>,
    /// Sockets in the ledger.
    pub sockets: usize,
    /// Who follows the events.
    pub follower: Option<u32>,
    /// What the programs counted, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// Starts tracing for as long as the returned value lives; nothing is pinned.
///
/// # Errors
/// The kernel's refusal.
pub fn trace_privately(sizes: Sizes, log: LogLevel) -> Result<Private, TracerError> {
    let mut object = Object::load(None, sizes, log)?;
    let (links, _) = attach_hooks(&mut object)?;
    let seeded = seed(&mut object)?;
    let mut store = Store::of(&mut object)?;
    store.set_control(Control {
        attached_at: clock::boottime(),
        attached_by: process::id(),
        ..IDLE
    })?;
    Ok(Private { store, object, seeded, _links: links.into_iter().map(|(_, l)| l).collect() })
}

/// Starts tracing and pins it: it goes on when this process ends.
///
/// # Errors
/// [`TracerError::AlreadyAttached`], or the kernel's refusal; then nothing is left behind.
pub fn attach(pins: &PinDirectory, sizes: Sizes) -> Result<Attached, TracerError> {
    let mounted = pins.create()?;
    // Locked until it is done, but not while the file system is let go of.
    let attached = pins.lock().and_then(|_lock| attach_in(pins, sizes, mounted));
    if attached.is_err() {
        // The error on its way says more than one from here could.
        pins.remove(mounted).ok();
    }
    attached
}

fn attach_in(pins: &PinDirectory, sizes: Sizes, mounted: Mounted) -> Result<Attached, TracerError> {
    let mut object = Object::load(Some(&pins.maps()), sizes, LogLevel::Off)?;
    let mut store = Store::open(&pins.maps())?;
    store.set_control(Control {
        attached_at: clock::boottime(),
        attached_by: process::id(),
        mounted_bpffs: u32::from(mounted == Mounted::ByUs),
        ..IDLE
    })?;
    let (links, left_out) = attach_hooks(&mut object)?;
    for (hook, link) in links {
        let path = pins.links().join(hook.program);
        link.pin(&path).map_err(|source| TracerError::Pin { path, source })?;
    }
    let seeded = seed(&mut object)?;
    let control = store.control()?;
    store.set_control(Control { seeded_at: clock::boottime(), ..control })?;
    Ok(Attached { seeded, sockets: store.len(), left_out, mounted })
}

/// Stops tracing and forgets what was tracked.
///
/// # Errors
/// [`TracerError::NotAttached`], or the kernel's.
pub fn detach(pins: &PinDirectory) -> Result<(), TracerError> {
    // An attach that is under way is waited for.
    let lock = pins.lock()?;
    // An incomplete or foreign set is cleared away as well, so do not insist on reading it.
    let ours = Store::open(&pins.maps())
        .and_then(|store| store.control())
        .is_ok_and(|control| control.mounted_bpffs == 1);
    // Of a bpf file system that is busy because of us, nobody could be rid.
    drop(lock);
    pins.remove(if ours { Mounted::ByUs } else { Mounted::Before })
}

/// Opens the maps of attached tracing.
///
/// # Errors
/// [`TracerError::NotAttached`], [`TracerError::Incomplete`], [`TracerError::OtherVersion`].
pub fn open(pins: &PinDirectory) -> Result<Store, TracerError> {
    pins.require()?;
    let store = Store::open(&pins.maps())?;
    let Control { shapes: found, seeded_at, .. } = store.control()?;
    let path = || pins.path().to_owned();
    if found != SHAPES {
        Err(TracerError::OtherVersion { path: path(), found, wanted: SHAPES })
    } else if seeded_at == 0 {
        let missing = "the seeding pass, which is under way or was interrupted,".to_owned();
        Err(TracerError::Incomplete { path: path(), missing })
    } else {
        Ok(store)
    }
}

/// What is attached.
///
/// # Errors
/// As [`open`].
pub fn status(pins: &PinDirectory) -> Result<Status, TracerError> {
    let store = open(pins)?;
    let control = store.control()?;
    let mut hooks = Vec::new();
    let mut left_out = Vec::new();
    for hook in TRACEPOINT {
        // A pin can stand for a link that is gone only if somebody detached it by force.
        match PinnedLink::from_pin(pins.links().join(hook.program)) {
            Ok(_) => hooks.push(hook.program.to_owned()),
            Err(_) => left_out.push(hook.program),
        }
    }
    Ok(Status {
        backend: Backend::Tracepoint,
        attached_at: control.attached_at,
        attached_by: control.attached_by,
        hooks,
        left_out,
        sockets: store.len(),
        follower: (control.follow_until > clock::boottime()).then_some(control.follower),
        counters: store.counters()?.iter().collect(),
    })
}

const IDLE: Control = Control {
    follow_until: 0,
    attached_at: 0,
    seeded_at: 0,
    follower: 0,
    attached_by: 0,
    shapes: SHAPES,
    mounted_bpffs: 0,
};

type Hooked = (Vec<(&'static Hook, FdLink)>, Vec<&'static str>);

/// Attaches what can be attached; what this kernel does not have is named.
fn attach_hooks(object: &mut Object) -> Result<Hooked, TracerError> {
    let mut links = Vec::new();
    let mut left_out = Vec::new();
    for hook in TRACEPOINT {
        if hook.need == Need::Optional && !object.has_tracepoint(hook.tracepoint) {
            left_out.push(hook.program);
            continue;
        }
        links.push((hook, object.attach(hook)?));
    }
    Ok((links, left_out))
}
