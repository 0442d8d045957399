//! The whole text, and what the conventions ask of any such text.

use std::collections::HashSet;

use ucr_common::control::counter;

use super::*;
use crate::model::inet::{self, Protocol};
use crate::tracer::event::KINDS;

/// Something of everything, each a number of its own.
fn figures() -> Figures {
    let mut next = 0;
    let mut number = || {
        next += 1;
        next
    };
    Figures {
        backend: Backend::Trampoline,
        sockets: vec![
            (SocketType::Stream, SocketState::Connected, number()),
            (SocketType::Stream, SocketState::Listening, number()),
            (SocketType::Dgram, SocketState::Unconnected, number()),
        ],
        internet: vec![(Over(Protocol::Tcp, inet::Family::V6), TcpState::CloseWait, 77)],
        events: KINDS.iter().take(2).map(|kind| (*kind, number())).collect(),
        lost: number(),
        missed: Some(number()),
        ring: Ring { waiting: number(), size: 4 << 20 },
        reconciled: Reconciled {
            passes: number(),
            failed: number(),
            added: number(),
            removed: number(),
            repaired: number(),
            last: Some(1_700_000_000_500_000_000),
        },
        followers: Followers { now: number(), missed: number() },
        control: Control {
            clients: number(),
            requests: vec![("list", number())],
            refused: vec![("too_large", number()), ("too_many", number())],
        },
        history: Some(History {
            size: number(),
            entries: vec![("socket", number()), ("event", number())],
            oldest: Some(1_600_000_000_000_000_000),
            forgotten: number(),
            gaps: number(),
            write_errors: vec![("full", number())],
            damaged: number(),
        }),
        counters: counter::MEANINGS.iter().map(|(name, _)| (*name, number())).collect(),
        own: Own {
            resident: number(),
            peak: number(),
            mapped: number(),
            cpu: std::time::Duration::from_millis(1500),
            started: 1_650_000_000_000_000_000,
            threads: number(),
            descriptors: number(),
            max_descriptors: number(),
        },
    }
}

fn text(figures: &Figures) -> String {
    exposition(figures).expect("a text")
}

#[test]
fn every_figure_is_told() {
    insta::assert_snapshot!(text(&figures()), @r#"
    # HELP ucr_build What runs.
    # TYPE ucr_build info
    ucr_build_info{version="0.1.0",backend="trampoline"} 1
    # HELP ucr_sockets Sockets that the ledger holds, by type and state.
    # TYPE ucr_sockets gauge
    ucr_sockets{type="stream",state="connected"} 1
    ucr_sockets{type="stream",state="listening"} 2
    ucr_sockets{type="dgram",state="unconnected"} 3
    ucr_sockets{type="tcp6",state="close-wait"} 77
    # HELP ucr_ledger_problems What the eBPF programs could not record, or recorded late, since tracing was attached.
    # TYPE ucr_ledger_problems counter
    ucr_ledger_problems_total{counter="ledger_full"} 29
    ucr_ledger_problems_total{counter="paths_full"} 30
    ucr_ledger_problems_total{counter="unreadable"} 31
    ucr_ledger_problems_total{counter="compat"} 32
    ucr_ledger_problems_total{counter="stale"} 33
    ucr_ledger_problems_total{counter="late"} 34
    ucr_ledger_problems_total{counter="census_full"} 37
    ucr_ledger_problems_total{counter="no_memory"} 38
    # HELP ucr_events Events that were read, by kind.
    # TYPE ucr_events counter
    ucr_events_total{kind="socket"} 4
    ucr_events_total{kind="socketpair"} 5
    # HELP ucr_events_lost Events that were lost because the ring buffer was full.
    # TYPE ucr_events_lost counter
    ucr_events_lost_total 6
    # HELP ucr_events_missed Events that the kernel did not hand to a program that was interrupted.
    # TYPE ucr_events_missed counter
    ucr_events_missed_total 7
    # HELP ucr_ring_waiting_bytes Size of the events that wait in the ring buffer.
    # TYPE ucr_ring_waiting_bytes gauge
    # UNIT ucr_ring_waiting_bytes bytes
    ucr_ring_waiting_bytes 8
    # HELP ucr_ring_size_bytes Size of the ring buffer.
    # TYPE ucr_ring_size_bytes gauge
    # UNIT ucr_ring_size_bytes bytes
    ucr_ring_size_bytes 4194304
    # HELP ucr_reconciliations Times that the ledger was held against the kernel.
    # TYPE ucr_reconciliations counter
    ucr_reconciliations_total 9
    # HELP ucr_reconciliations_failed Reconciliations that did not come to their end.
    # TYPE ucr_reconciliations_failed counter
    ucr_reconciliations_failed_total 10
    # HELP ucr_reconciled_sockets Sockets whose record a reconciliation added, removed or repaired.
    # TYPE ucr_reconciled_sockets counter
    ucr_reconciled_sockets_total{what="added"} 11
    ucr_reconciled_sockets_total{what="removed"} 12
    ucr_reconciled_sockets_total{what="repaired"} 13
    # HELP ucr_last_reconciliation_timestamp_seconds When the last reconciliation ended, in seconds since the epoch.
    # TYPE ucr_last_reconciliation_timestamp_seconds gauge
    # UNIT ucr_last_reconciliation_timestamp_seconds seconds
    ucr_last_reconciliation_timestamp_seconds 1700000000.5
    # HELP ucr_followers Clients that follow the events.
    # TYPE ucr_followers gauge
    ucr_followers 14
    # HELP ucr_follower_missed_events Events that followers missed because they were slow.
    # TYPE ucr_follower_missed_events counter
    ucr_follower_missed_events_total 15
    # HELP ucr_control_clients Clients that are connected.
    # TYPE ucr_control_clients gauge
    ucr_control_clients 16
    # HELP ucr_control_requests Requests that were answered, by kind.
    # TYPE ucr_control_requests counter
    ucr_control_requests_total{kind="list"} 17
    # HELP ucr_control_refused Requests and clients that were turned away, by reason.
    # TYPE ucr_control_refused counter
    ucr_control_refused_total{reason="too_large"} 18
    ucr_control_refused_total{reason="too_many"} 19
    # HELP ucr_history_size_bytes Size of the history with its log.
    # TYPE ucr_history_size_bytes gauge
    # UNIT ucr_history_size_bytes bytes
    ucr_history_size_bytes 20
    # HELP ucr_history_entries Entries of the history, by kind.
    # TYPE ucr_history_entries gauge
    ucr_history_entries{kind="socket"} 21
    ucr_history_entries{kind="event"} 22
    # HELP ucr_history_oldest_timestamp_seconds When the oldest entry was made, in seconds since the epoch.
    # TYPE ucr_history_oldest_timestamp_seconds gauge
    # UNIT ucr_history_oldest_timestamp_seconds seconds
    ucr_history_oldest_timestamp_seconds 1600000000.0
    # HELP ucr_history_forgotten_entries Entries that were forgotten for want of room or because of their age.
    # TYPE ucr_history_forgotten_entries counter
    ucr_history_forgotten_entries_total 23
    # HELP ucr_history_gaps Times in which nothing was written.
    # TYPE ucr_history_gaps counter
    ucr_history_gaps_total 24
    # HELP ucr_history_write_errors Entries that could not be written, by reason.
    # TYPE ucr_history_write_errors counter
    ucr_history_write_errors_total{reason="full"} 25
    # HELP ucr_history_damaged_databases Databases that were found damaged and put aside.
    # TYPE ucr_history_damaged_databases counter
    ucr_history_damaged_databases_total 26
    # HELP process_resident_memory_bytes Resident memory.
    # TYPE process_resident_memory_bytes gauge
    # UNIT process_resident_memory_bytes bytes
    process_resident_memory_bytes 39
    # HELP process_resident_memory_peak_bytes Most resident memory since the start.
    # TYPE process_resident_memory_peak_bytes gauge
    # UNIT process_resident_memory_peak_bytes bytes
    process_resident_memory_peak_bytes 40
    # HELP process_virtual_memory_bytes Address space.
    # TYPE process_virtual_memory_bytes gauge
    # UNIT process_virtual_memory_bytes bytes
    process_virtual_memory_bytes 41
    # HELP process_cpu_seconds Processor time spent, of user and kernel.
    # TYPE process_cpu_seconds counter
    # UNIT process_cpu_seconds seconds
    process_cpu_seconds_total 1.5
    # HELP process_start_time_seconds When the process was started, in seconds since the epoch.
    # TYPE process_start_time_seconds gauge
    # UNIT process_start_time_seconds seconds
    process_start_time_seconds 1650000000.0
    # HELP process_threads Threads.
    # TYPE process_threads gauge
    process_threads 42
    # HELP process_open_fds Open descriptors.
    # TYPE process_open_fds gauge
    process_open_fds 43
    # HELP process_max_fds Most open descriptors.
    # TYPE process_max_fds gauge
    process_max_fds 44
    # EOF
    "#);
}

#[test]
fn what_is_not_known_is_left_out() {
    let text = text(&Figures::new(Backend::Tracepoint));
    for name in ["missed_total", "history", "last_reconciliation"] {
        let mut lines = text.lines().filter(|line| !line.contains("follower"));
        assert!(lines.all(|line| !line.contains(name)), "{name}: {text}");
    }
    assert!(text.contains("\nucr_events_lost_total 0\n"), "{text}");
}

/// A family of metrics, as the text introduces it.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    unit: Option<&'a str>,
    samples: Vec<&'a str>,
}

/// Reads a text by the grammar of OpenMetrics, as far as we use it.
fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let body = text.strip_suffix("# EOF\n").expect("an end");
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help");
            families.push(Family { name, help, kind: "", unit: None, samples: Vec::new() });
            continue;
        }
        let family = families.last_mut().expect("a family");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!((name, family.kind), (family.name, ""), "{line}");
            family.kind = kind;
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').expect("a unit");
            assert_eq!((name, family.unit), (family.name, None), "{line}");
            family.unit = Some(unit);
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            family.samples.push(line);
        }
    }
    families
}

#[test]
fn the_text_keeps_the_conventions() {
    let text = text(&figures());
    let families = families(&text);
    let (mut names, mut samples) = (HashSet::new(), HashSet::new());
    for Family { name, help, kind, unit, samples: own } in &families {
        assert!(names.insert(*name), "{name} is there twice");
        assert!(name.starts_with("ucr_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(help.len() > 3 && help.ends_with('.') && !help.ends_with(".."), "{name}: {help}");
        assert!(!own.is_empty(), "{name} has no samples");
        // What reserves an ending, and which unit ends a name.
        for reserved in ["_total", "_info", "_count", "_sum", "_bucket", "_created"] {
            assert!(!name.ends_with(reserved), "{name}");
        }
        assert!(unit.is_none_or(|unit| name.ends_with(&format!("_{unit}"))), "{name}: {unit:?}");
        let has_unit = ["bytes", "seconds"].iter().any(|unit| name.ends_with(unit));
        assert_eq!(has_unit, unit.is_some(), "{name}");
        let ending = match *kind {
            "counter" => "_total",
            "info" => "_info",
            "gauge" => "",
            other => panic!("{name} is a {other}"),
        };
        for sample in own {
            let (series, value) = sample.rsplit_once(' ').expect("a value");
            assert!(samples.insert(series), "{series} is there twice");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{sample}");
            let sample_name = series.split('{').next().expect("a name");
            assert_eq!(sample_name, format!("{name}{ending}"));
        }
    }
}

#[test]
fn every_counter_of_the_programs_is_told_somewhere() {
    let text = text(&figures());
    for (name, _) in counter::MEANINGS {
        let told = text.contains(&format!("ucr_ledger_problems_total{{counter=\"{name}\"}}"));
        // Lost events, and what reconciliations did, have metrics of their own.
        let elsewhere = ["emitted", "lost", "found", "repaired"].contains(&name);
        assert_ne!(told, elsewhere, "{name}");
    }
}
