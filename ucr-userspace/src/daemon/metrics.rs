//! Figures for Prometheus: what is told, and the OpenMetrics text that tells it.
//!
//! Figures are counts and sizes only. They name no process, socket or user, so that whoever may ask for
//! them learns nothing about who talks to whom.

mod page;

use std::fmt;

use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, encoding::text, registry::Registry,
};

use self::page::Page;
use crate::{
    model::{
        SocketState, SocketType,
        inet::{Over, TcpState},
    },
    process::own::Own,
    tracer::hooks::Backend,
};

/// How the text is to be announced (`Content-Type`).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is told. Totals count from the start of the daemon, if nothing else is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// How tracing is attached.
    pub backend: Backend,
    /// Sockets that the ledger holds, by type and state.
    pub sockets: Vec<(SocketType, SocketState, u64)>,
    /// Internet sockets that it holds.
    pub internet: Vec<(Over, TcpState, u64)>,
    /// Events that were read, by kind.
    pub events: Vec<(&'static str, u64)>,
    /// Events that were lost since the ring buffer was full.
    pub lost: u64,
    /// Events that the kernel did not hand to a program that was interrupted; `None`: it does not tell.
    pub missed: Option<u64>,
    /// The ring buffer.
    pub ring: Ring,
    /// What reconciliations did.
    pub reconciled: Reconciled,
    /// Who follows the events.
    pub followers: Followers,
    /// Who asks.
    pub control: Control,
    /// The history, if there is one.
    pub history: Option<History>,
    /// What the eBPF programs counted since tracing was attached, by the names of
    /// [`ucr_common::control::counter::MEANINGS`].
    pub counters: Vec<(&'static str, u64)>,
    /// The daemon's own process.
    pub own: Own,
}

/// The ring buffer that events wait in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Bytes that wait to be read.
    pub waiting: u64,
    /// Bytes that it holds.
    pub size: u64,
}

/// What reconciliations did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// How many there were.
    pub passes: u64,
    /// How many did not come to their end.
    pub failed: u64,
    /// Sockets that the ledger did not have.
    pub added: u64,
    /// Sockets that were gone.
    pub removed: u64,
    /// Sockets whose record was wrong.
    pub repaired: u64,
    /// When the last one ended, in nanoseconds since the epoch.
    pub last: Option<u64>,
}

/// Who follows the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followers {
    /// How many there are.
    pub now: u64,
    /// Events that they missed because they were slow.
    pub missed: u64,
}

/// Who asks on the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Clients that are connected.
    pub clients: u64,
    /// Requests that were answered, by kind.
    pub requests: Vec<(&'static str, u64)>,
    /// Requests and clients that were turned away, by reason.
    pub refused: Vec<(&'static str, u64)>,
}

/// The database of what is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Its size with its log, in bytes.
    pub size: u64,
    /// Its entries, by kind.
    pub entries: Vec<(&'static str, u64)>,
    /// When the oldest entry was made, in nanoseconds since the epoch.
    pub oldest: Option<u64>,
    /// Entries that were forgotten for want of room or because of their age.
    pub forgotten: u64,
    /// Times in which nothing was written, and which are noted as such.
    pub gaps: u64,
    /// Entries that could not be written, by reason.
    pub write_errors: Vec<(&'static str, u64)>,
    /// Databases that were found damaged and put aside.
    pub damaged: u64,
}

impl Figures {
    /// Nothing yet, of tracing by this backend.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            sockets: Vec::new(),
            internet: Vec::new(),
            events: Vec::new(),
            lost: 0,
            missed: None,
            ring: Ring::default(),
            reconciled: Reconciled::default(),
            followers: Followers::default(),
            control: Control::default(),
            history: None,
            counters: Vec::new(),
            own: Own::default(),
        }
    }
}

/// The text that tells them.
///
/// # Errors
/// None that is known: a string takes all that is written to it.
pub fn exposition(figures: &Figures) -> Result<String, fmt::Error> {
    // Filled anew for each scrape: the figures are kept elsewhere, by who counts.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(figures.clone())));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Figures);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        page::encode(&self.0, &mut Page::new(encoder))
    }
}

#[cfg(test)]
mod tests;
