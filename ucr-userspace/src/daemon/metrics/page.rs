//! Every metric: its name, its help, its unit, and which figure it tells.
//!
//! Names are those of the Prometheus conventions: base units at the end, `_total` behind a counter (which
//! the encoder appends), `process_…` as all exporters have them.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeCounterValue, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{Control, Figures, Followers, History, Reconciled};
use crate::process::own::Own;

/// What the programs count that is told by metrics of their own, or is no problem.
const TOLD_ELSEWHERE: [&str; 4] = ["emitted", "lost", "found", "repaired"];

/// Tells all figures.
pub(super) fn encode(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("backend", figures.backend.name())];
    page.family("ucr_build", "What runs", None, MetricType::Info)?.encode_info(&labels)?;
    sockets(figures, page)?;
    events(figures, page)?;
    reconciled(&figures.reconciled, page)?;
    followers(figures.followers, page)?;
    control(&figures.control, page)?;
    figures.history.as_ref().map_or(Ok(()), |figures| history(figures, page))?;
    own(&figures.own, page)
}

fn sockets(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let help = "Sockets that the ledger holds, by type and state";
    let mut family = page.family("ucr_sockets", help, None, MetricType::Gauge)?;
    for (kind, state, count) in &figures.sockets {
        let labels = [("type", kind.to_string()), ("state", state.to_string())];
        family.encode_family(&labels)?.encode_gauge(count)?;
    }
    for (kind, state, count) in &figures.internet {
        let state = state.name().to_ascii_lowercase();
        let labels = [("type", kind.to_string()), ("state", state)];
        family.encode_family(&labels)?.encode_gauge(count)?;
    }
    let counters = figures.counters.iter().copied();
    let problems: Vec<_> = counters.filter(|(name, _)| !TOLD_ELSEWHERE.contains(name)).collect();
    page.counters(
        "ucr_ledger_problems",
        "What the eBPF programs could not record, or recorded late, since tracing was attached",
        "counter",
        &problems,
    )
}

fn events(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    page.counters("ucr_events", "Events that were read, by kind", "kind", &figures.events)?;
    let help = "Events that were lost because the ring buffer was full";
    page.counter("ucr_events_lost", help, None, &figures.lost)?;
    if let Some(missed) = &figures.missed {
        let help = "Events that the kernel did not hand to a program that was interrupted";
        page.counter("ucr_events_missed", help, None, missed)?;
    }
    let bytes = Some(&Unit::Bytes);
    page.gauge(
        "ucr_ring_waiting",
        "Size of the events that wait in the ring buffer",
        bytes,
        figures.ring.waiting,
    )?;
    page.gauge("ucr_ring_size", "Size of the ring buffer", bytes, figures.ring.size)
}

fn reconciled(figures: &Reconciled, page: &mut Page<'_>) -> fmt::Result {
    let help = "Times that the ledger was held against the kernel";
    page.counter("ucr_reconciliations", help, None, &figures.passes)?;
    let help = "Reconciliations that did not come to their end";
    page.counter("ucr_reconciliations_failed", help, None, &figures.failed)?;
    page.counters(
        "ucr_reconciled_sockets",
        "Sockets whose record a reconciliation added, removed or repaired",
        "what",
        &[("added", figures.added), ("removed", figures.removed), ("repaired", figures.repaired)],
    )?;
    let help = "When the last reconciliation ended";
    page.moment("ucr_last_reconciliation_timestamp", help, figures.last)
}

fn followers(figures: Followers, page: &mut Page<'_>) -> fmt::Result {
    page.gauge("ucr_followers", "Clients that follow the events", None, figures.now)?;
    let help = "Events that followers missed because they were slow";
    page.counter("ucr_follower_missed_events", help, None, &figures.missed)
}

fn control(figures: &Control, page: &mut Page<'_>) -> fmt::Result {
    page.gauge("ucr_control_clients", "Clients that are connected", None, figures.clients)?;
    let help = "Requests that were answered, by kind";
    page.counters("ucr_control_requests", help, "kind", &figures.requests)?;
    let help = "Requests and clients that were turned away, by reason";
    page.counters("ucr_control_refused", help, "reason", &figures.refused)
}

fn history(figures: &History, page: &mut Page<'_>) -> fmt::Result {
    let help = "Size of the history with its log";
    page.gauge("ucr_history_size", help, Some(&Unit::Bytes), figures.size)?;
    let help = "Entries of the history, by kind";
    let mut family = page.family("ucr_history_entries", help, None, MetricType::Gauge)?;
    for (kind, count) in &figures.entries {
        family.encode_family(&[("kind", *kind)])?.encode_gauge(count)?;
    }
    page.moment("ucr_history_oldest_timestamp", "When the oldest entry was made", figures.oldest)?;
    let help = "Entries that were forgotten for want of room or because of their age";
    page.counter("ucr_history_forgotten_entries", help, None, &figures.forgotten)?;
    let help = "Times in which nothing was written";
    page.counter("ucr_history_gaps", help, None, &figures.gaps)?;
    let help = "Entries that could not be written, by reason";
    page.counters("ucr_history_write_errors", help, "reason", &figures.write_errors)?;
    let help = "Databases that were found damaged and put aside";
    page.counter("ucr_history_damaged_databases", help, None, &figures.damaged)
}

fn own(figures: &Own, page: &mut Page<'_>) -> fmt::Result {
    let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
    page.gauge("process_resident_memory", "Resident memory", bytes, figures.resident)?;
    let help = "Most resident memory since the start";
    page.gauge("process_resident_memory_peak", help, bytes, figures.peak)?;
    page.gauge("process_virtual_memory", "Address space", bytes, figures.mapped)?;
    let help = "Processor time spent, of user and kernel";
    page.counter("process_cpu", help, seconds, &figures.cpu.as_secs_f64())?;
    page.moment("process_start_time", "When the process was started", Some(figures.started))?;
    page.gauge("process_threads", "Threads", None, figures.threads)?;
    page.gauge("process_open_fds", "Open descriptors", None, figures.descriptors)?;
    page.gauge("process_max_fds", "Most open descriptors", None, figures.max_descriptors)
}

/// The text as it grows.
#[derive(Debug)]
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, &format!("{help}."), unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A moment, given in nanoseconds since the epoch, told in seconds; nothing if there is none.
    fn moment(&mut self, name: &str, help: &str, moment: Option<u64>) -> fmt::Result {
        let Some(moment) = moment else { return Ok(()) };
        let seconds = Duration::from_nanos(moment).as_secs_f64();
        let help = format!("{help}, in seconds since the epoch");
        self.family(name, &help, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&seconds)
    }

    fn counter<V: EncodeCounterValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: &V,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter)?
            .encode_counter::<NoLabelSet, V, u64>(value, None)
    }

    /// One counter for each value of a label.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(value, count)| {
            let labels = [(label, *value)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(count, None)
        })
    }
}
