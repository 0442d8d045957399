//! Attaching, detaching, and the state of what is attached.

use std::{os::fd::AsFd as _, process};

use aya::programs::links::{FdLink, PinnedLink};
use serde::Serialize;
use ucr_common::control::{Control, FOREVER, SHAPES};

use super::{
    TracerError,
    follow::is_there,
    hooks::{Backend, Choice, Hook, Need},
    missed::missed,
    object::{LogLevel, Object, Sizes, open_pin},
    pass::{self, Pass},
    pins::{Mounted, PinDirectory},
    programs::{PROGRAMS, Programs},
    reconcile::{self, Reconciled},
    store::Store,
};
use crate::kernel::clock;

/// Tracing that lasts as long as this value.
pub struct Private {
    /// The maps.
    pub store: Store,
    /// The object, for its ring buffer and log.
    pub object: Object,
    /// Programs that are run when somebody asks.
    pub programs: Programs,
    /// How the ledger is filled.
    pub backend: Backend,
    /// What could not be attached.
    pub refused: Refused,
    /// What the seeding pass did.
    pub seeded: Pass,
    _links: Vec<FdLink>,
}

/// What this kernel could not be made to run.
#[derive(Debug, Default)]
pub struct Refused {
    /// A better backend, and why it could not be had.
    pub backend: Option<(Backend, TracerError)>,
    /// Programs that were left out, and why.
    pub hooks: Vec<(&'static str, TracerError)>,
}

/// What [`attach`] did.
#[derive(Debug)]
pub struct Attached {
    /// How the ledger is filled.
    pub backend: Backend,
    /// What could not be attached.
    pub refused: Refused,
    /// What the seeding pass did.
    pub seeded: Pass,
    /// Sockets that it found.
    pub sockets: usize,
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
    /// Sockets in the ledger, of all families.
    pub sockets: usize,
    /// How many of them are internet sockets.
    pub internet: usize,
    /// Who follows the events.
    pub follower: Option<u32>,
    /// Whether nobody does, and events wait in the ring buffer for the next daemon.
    pub kept_for_later: bool,
    /// When the ledger was last reconciled with the kernel; 0: never.
    pub reconciled_at: u64,
    /// Events lost, for each CPU.
    pub lost_by_cpu: Vec<u64>,
    /// Events that the kernel did not hand to a program that was interrupted; `None`: it does not tell.
    pub missed: Option<u64>,
    /// What the programs counted, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// Starts tracing for as long as the returned value lives; nothing is pinned.
///
/// # Errors
/// The kernel's refusal.
pub fn trace_privately(
    choice: &Choice,
    sizes: Sizes,
    log: LogLevel,
) -> Result<Private, TracerError> {
    let mut object = Object::load(None, sizes, log)?;
    let hooked = attach_hooks(&mut object, choice)?;
    let seeded = seed(&mut object)?;
    let mut store = Store::of(&mut object)?;
    let programs = Programs::of(&mut object)?;
    let now = clock::boottime();
    store.set_control(Control {
        attached_at: now,
        seeded_at: now,
        attached_by: process::id(),
        backend: hooked.backend.number(),
        ..IDLE
    })?;
    let Hooked { backend, refused, links } = hooked;
    let links = links.into_iter().map(|(_, link)| link).collect();
    Ok(Private { store, object, programs, backend, refused, seeded, _links: links })
}

/// Starts tracing and pins it: it goes on when this process ends.
///
/// # Errors
/// [`TracerError::AlreadyAttached`], or the kernel's refusal; then nothing is left behind.
pub fn attach(pins: &PinDirectory, choice: &Choice, sizes: Sizes) -> Result<Attached, TracerError> {
    let mounted = pins.create()?;
    // Locked until it is done, but not while the file system is let go of.
    let attached = pins.lock().and_then(|_lock| attach_in(pins, choice, sizes, mounted));
    if attached.is_err() {
        // The error on its way says more than one from here could.
        pins.remove(|| mounted).ok();
    }
    attached
}

fn attach_in(
    pins: &PinDirectory,
    choice: &Choice,
    sizes: Sizes,
    mounted: Mounted,
) -> Result<Attached, TracerError> {
    let mut object = Object::load(Some(&pins.maps()), sizes, LogLevel::Off)?;
    let mut store = Store::open(&pins.maps())?;
    let Hooked { backend, refused, links } = attach_hooks(&mut object, choice)?;
    store.set_control(Control {
        attached_at: clock::boottime(),
        attached_by: process::id(),
        mounted_bpffs: u32::from(mounted == Mounted::ByUs),
        backend: backend.number(),
        ..IDLE
    })?;
    for (hook, link) in links {
        let path = pins.links().join(hook.program);
        link.pin(&path).map_err(|source| TracerError::Pin { path, source })?;
    }
    object.load_programs(&PROGRAMS)?;
    for (name, _) in PROGRAMS {
        object.pin(name, &pins.programs().join(name))?;
    }
    let seeded = seed(&mut object)?;
    let control = store.control()?;
    store.set_control(Control { seeded_at: clock::boottime(), ..control })?;
    Ok(Attached { backend, refused, seeded, sockets: store.len(), mounted })
}

/// Seeds the ledger: what is there before tracing is complete counts as older than the tracer.
fn seed(object: &mut Object) -> Result<Pass, TracerError> {
    object.iterator("visit_unix", "unix")?;
    object.iterator("visit_inet", "task_file")?;
    let pass = pass::run(object.loaded("visit_unix")?.as_fd())?;
    pass::run_everywhere("visit_inet", object.loaded("visit_inet")?.as_fd())?;
    Ok(pass)
}

/// Stops tracing and forgets what was tracked.
///
/// # Errors
/// [`TracerError::NotAttached`], or the kernel's.
pub fn detach(pins: &PinDirectory) -> Result<(), TracerError> {
    // An incomplete or foreign set is cleared away as well, so do not insist on reading it.
    let mounted = || {
        let control = Store::open(&pins.maps()).and_then(|store| store.control());
        let ours = control.is_ok_and(|control| control.mounted_bpffs == 1);
        if ours { Mounted::ByUs } else { Mounted::Before }
    };
    pins.remove(mounted)
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

/// Opens the maps of attached tracing if it is of the wanted backend.
///
/// # Errors
/// As [`open`]; [`TracerError::OtherBackend`].
pub fn open_as(pins: &PinDirectory, wanted: Option<Backend>) -> Result<Store, TracerError> {
    let store = open(pins)?;
    let attached = backend_of(&store.control()?)?;
    match wanted {
        Some(wanted) if wanted != attached => Err(TracerError::OtherBackend { attached, wanted }),
        _ => Ok(store),
    }
}

/// Holds the ledger of attached tracing against the kernel, and repairs it.
///
/// # Errors
/// As [`open`], and the kernel's.
pub fn reconcile(pins: &PinDirectory) -> Result<Reconciled, TracerError> {
    // One at a time: two passes at once would take each other's findings for changes.
    let _lock = pins.lock()?;
    let mut store = open(pins)?;
    reconcile::reconcile(&Programs::open(pins)?, &mut store)
}

fn backend_of(control: &Control) -> Result<Backend, TracerError> {
    Backend::of_number(control.backend).ok_or(TracerError::Missing("known backend"))
}

/// What is attached.
///
/// # Errors
/// As [`open`].
pub fn status(pins: &PinDirectory) -> Result<Status, TracerError> {
    let store = open(pins)?;
    let (control, lease) = (store.control()?, store.lease()?);
    let backend = backend_of(&control)?;
    let mut hooks = Vec::new();
    let mut left_out = Vec::new();
    for hook in backend.hooks() {
        // A pin can stand for a link that is gone only if somebody detached it by force.
        if PinnedLink::from_pin(pins.links().join(hook.program)).is_ok() {
            hooks.push(hook.program.to_owned());
        } else if !matches!(hook.need, Need::InPlaceOf(_) | Need::PreferablyInPlaceOf(_)) {
            left_out.push(hook.program);
        }
    }
    let (unix, internet) = count(pins)?;
    Ok(Status {
        backend,
        attached_at: control.attached_at,
        attached_by: control.attached_by,
        hooks,
        left_out,
        sockets: unix + internet,
        internet,
        follower: (lease.until > clock::boottime() && is_there(&lease)).then_some(lease.follower),
        kept_for_later: lease.until == FOREVER && !is_there(&lease),
        reconciled_at: control.reconciled_at,
        lost_by_cpu: store.lost_by_cpu()?,
        missed: open_pin(&pins.maps(), "LEDGER")?.info().ok().and_then(|map| missed(map.id())),
        counters: store.counters()?.iter().collect(),
    })
}

/// How many unix and internet sockets the ledger has: counted in the kernel, since a walk from here begins anew whenever the
/// socket that it stands at has gone.
fn count(pins: &PinDirectory) -> Result<(usize, usize), TracerError> {
    let (unix, internet) = Programs::open(pins)?.count()?;
    let number = |sum: u64| usize::try_from(sum).unwrap_or(usize::MAX);
    let unix = unix.into_iter().map(|(_, _, count)| count).sum();
    Ok((number(unix), number(internet.into_iter().map(|(_, _, count)| count).sum())))
}

const IDLE: Control = Control {
    attached_at: 0,
    seeded_at: 0,
    attached_by: 0,
    shapes: SHAPES,
    mounted_bpffs: 0,
    reconciled_at: 0,
    backend: 0,
};

/// Programs that are attached, as long as this value lives.
#[derive(Debug)]
pub struct Hooked {
    /// How the ledger is filled.
    pub backend: Backend,
    /// What could not be attached.
    pub refused: Refused,
    /// Each with what holds it in its place.
    pub links: Vec<(&'static Hook, FdLink)>,
}

/// Attaches the backend that was chosen, or else the best that this kernel has. Neither the ledger is
/// seeded, nor is anything pinned.
///
/// # Errors
/// The kernel's refusal.
pub fn attach_hooks(object: &mut Object, choice: &Choice) -> Result<Hooked, TracerError> {
    let without = &choice.without;
    match choice.backend {
        Some(Backend::Snapshot) => Err(TracerError::NothingToAttach),
        Some(backend) => attach_backend(object, backend, without),
        None => attach_backend(object, Backend::Trampoline, without).or_else(|error| {
            if error.is_exhaustion() {
                return Err(error);
            }
            let mut hooked = attach_backend(object, Backend::Tracepoint, without)?;
            hooked.refused.backend = Some((Backend::Trampoline, error));
            Ok(hooked)
        }),
    }
}

/// Attaches what can be attached; what this kernel does not have is named.
fn attach_backend(
    object: &mut Object,
    backend: Backend,
    without: &[String],
) -> Result<Hooked, TracerError> {
    let mut links: Vec<(&'static Hook, FdLink)> = Vec::new();
    let mut left_out: Vec<(&'static str, TracerError)> = Vec::new();
    for hook in backend.hooks() {
        let is_attached = |name| links.iter().any(|(other, _)| other.program == name);
        let fallback = match hook.need {
            Need::InPlaceOf(other) | Need::PreferablyInPlaceOf(other) => {
                if is_attached(other) {
                    continue;
                }
                true
            }
            Need::Required | Need::Optional | Need::With(_) => false,
        };
        let is_pointless = matches!(hook.need, Need::With(other) if !is_attached(other));
        let attached = if is_pointless || without.iter().any(|name| name == hook.program) {
            Err(TracerError::LeftOut { program: hook.program })
        } else {
            object.attach(hook)
        };
        match attached {
            Ok(link) => links.push((hook, link)),
            Err(error) if matches!(hook.need, Need::Required | Need::InPlaceOf(_)) => {
                return Err(error);
            }
            Err(_) if fallback => {}
            Err(error) => left_out.push((hook.program, error)),
        }
    }
    Ok(Hooked { backend, refused: Refused { backend: None, hooks: left_out }, links })
}
