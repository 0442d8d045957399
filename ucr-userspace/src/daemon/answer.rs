//! Answers questions. What takes long runs on threads of its own, a few at a time.

use std::sync::{Arc, atomic::Ordering};

use rustix::process::getpid;

use super::{
    protocol::{About, Gone, ROWS_AT_ONCE, Refusal, Reply, Wanted},
    shared::Shared,
    status::Status,
};
use crate::{
    causes::one_line,
    history::{
        Found, Reader, Span,
        columns::{self as past_columns, events},
        search::{Order, Search},
    },
    inspect::{columns::columns, graph, picture::Picture, who},
    kernel::clock,
    model::{Count, Pid},
    process::own,
    query::listing::{Listing, Request, list},
    tracer::{
        TracerError,
        filter::{EventFilter, Failed, Kind, pattern},
        programs::Scope,
        session,
        store::Store,
    },
};

/// Answers a question that has one answer; an event stream is none.
///
/// # Errors
/// Why there is no answer.
pub fn answer(shared: &Arc<Shared>, about: &About) -> Result<Vec<Reply>, Refusal> {
    match about {
        About::Status => Ok(vec![Reply::Status(Box::new(status(shared)))]),
        About::Metrics => super::figures::exposition(shared)
            .map(|text| vec![Reply::Text(text)])
            .map_err(|message| Refusal::Failed { message, hint: None }),
        About::Live { listing, scope } => live(shared, listing, *scope),
        About::Who(target) => {
            let store = store(shared)?;
            let answer = who::who(&shared.programs, Some(&store), target).map_err(failed)?;
            Ok(vec![Reply::Who(Box::new(answer))])
        }
        About::Graph { filter, scope } => {
            let store = store(shared)?;
            let picture = Picture::take(&shared.programs, Some(&store), *scope).map_err(failed)?;
            let graph = graph::of(&picture, filter.as_deref(), clock::realtime());
            let graph = graph.map_err(Refusal::Request)?;
            Ok(notes(&picture).chain([Reply::Graph(Box::new(graph))]).collect())
        }
        About::History { kind, since, until, listing } => {
            let span = Span { since: *since, until: *until };
            history(shared, *kind, span, listing)
        }
        About::Trace(_) => Err(Refusal::Malformed),
    }
}

/// A listing as it is sent.
fn told(listing: Listing) -> Vec<Reply> {
    let Listing { headings, rows, matched, examined } = listing;
    let mut replies = vec![Reply::Listing { headings, matched, examined }];
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        replies.push(Reply::Rows(rows.by_ref().take(ROWS_AT_ONCE).collect()));
    }
    replies
}

fn notes(picture: &Picture<'_>) -> impl Iterator<Item = Reply> {
    picture.incomplete.iter().cloned().map(Reply::Note)
}

fn live(shared: &Shared, listing: &Request, scope: Scope) -> Result<Vec<Reply>, Refusal> {
    let store = store(shared)?;
    let picture = Picture::take(&shared.programs, Some(&store), scope).map_err(failed)?;
    let found = list(picture.entries(), &columns(), listing, clock::realtime());
    let mut replies = told(found.map_err(Refusal::Request)?);
    replies.extend(notes(&picture));
    Ok(replies)
}

fn history(
    shared: &Shared,
    kind: Gone,
    span: Span,
    listing: &Request,
) -> Result<Vec<Reply>, Refusal> {
    let config = shared.config();
    if !config.history.enabled {
        return Err(Refusal::NoHistory);
    }
    let reader = Reader::open(&config.history.file).map_err(failed)?;
    let (listing, notes) = past(&reader, kind, span, listing)?;
    Ok(told(listing).into_iter().chain(notes.into_iter().map(Reply::Note)).collect())
}

/// Searches the history, also for who has no daemon.
///
/// # Errors
/// A listing that makes no sense; what the database refuses.
pub fn past(
    reader: &Reader,
    kind: Gone,
    span: Span,
    listing: &Request,
) -> Result<(Listing, Vec<String>), Refusal> {
    let now = clock::realtime();
    let mut notes = Vec::new();
    let found = match kind {
        Gone::Sockets => {
            let mut search = reader.gone(span, Order::NewestFirst).map_err(failed)?;
            let found = list(entries(&mut search, &mut notes), past_columns::all(), listing, now);
            unreadable(&search, &mut notes);
            found
        }
        Gone::Events => {
            let mut search = reader.events(span, Order::NewestFirst).map_err(failed)?;
            let found = list(entries(&mut search, &mut notes), events::all(), listing, now);
            unreadable(&search, &mut notes);
            found
        }
    };
    for gap in reader.gaps(span).map_err(failed)? {
        notes.push(missing(&gap));
    }
    Ok((found.map_err(Refusal::Request)?, notes))
}

/// What can be read; the first thing that cannot ends it, and is noted.
fn entries<'a, T: crate::history::kept::Kept>(
    search: &'a mut Search<'_, T>,
    notes: &'a mut Vec<String>,
) -> impl Iterator<Item = Found<T>> {
    std::iter::from_fn(move || match search.next()? {
        Ok(found) => Some(found),
        Err(error) => {
            notes.push(one_line(&error));
            None
        }
    })
}

fn unreadable<T: crate::history::kept::Kept>(search: &Search<'_, T>, notes: &mut Vec<String>) {
    let unreadable = search.unreadable();
    if unreadable.blocks > 0 {
        notes.push(format!(
            "{} in {} could not be read: the database is damaged there",
            Count(unreadable.entries, "entry"),
            Count(unreadable.blocks, "block")
        ));
    }
}

/// A gap in words.
fn missing(gap: &Found<crate::history::Gap>) -> String {
    use crate::{history::GapReason, model::time::Utc};
    let why = match gap.entry.reason {
        GapReason::Lost => "came faster than they were read",
        GapReason::Absent => "happened while nobody kept them",
        GapReason::Unwritten => "could not be written",
        GapReason::Damaged => "were in a file that is damaged",
    };
    let until = Utc(gap.realtime(gap.entry.until));
    let what = match gap.entry.lost {
        Some(lost) => format!("{lost} entries"),
        None => "what".to_owned(),
    };
    if gap.entry.from == 0 {
        format!("missing: {what} before {until}, which {why}")
    } else {
        let from = Utc(gap.realtime(gap.entry.from));
        format!("missing: {what} between {from} and {until}, which {why}")
    }
}

/// How the daemon is.
#[must_use]
pub fn status(shared: &Shared) -> Status {
    let counts = &shared.counts;
    let refused = counts.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let refused = refused.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect();
    let requests = counts.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let reconciliation =
        shared.reconciliation.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let usage = own::own().ok();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: getpid().as_raw_nonzero().get().cast_unsigned(),
        since: shared.since,
        followers: u64::try_from(shared.hub.followers()).unwrap_or(u64::MAX),
        missed: shared.hub.missed(),
        clients: counts.clients.load(Ordering::Relaxed),
        requests: requests.values().sum(),
        refused,
        events: counts.all_events(),
        lost: counts.lost.load(Ordering::Relaxed),
        ring: shared.ring.depth(),
        reconciliations: reconciliation.count,
        reconciled_at: reconciliation.last,
        reconciliation_failed: reconciliation.failed.clone(),
        history: shared.history_status(),
        memory: usage.as_ref().map_or(0, |usage| usage.resident),
        cpu: usage
            .as_ref()
            .map_or(0, |usage| u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX)),
    }
}

fn store(shared: &Shared) -> Result<Store, Refusal> {
    session::open(&shared.pins).map_err(|error: TracerError| Refusal::Failed {
        message: one_line(&error),
        hint: error.hint().map(str::to_owned),
    })
}

fn failed(error: impl std::error::Error + 'static) -> Refusal {
    Refusal::Failed { message: one_line(&error), hint: None }
}

/// The events that a client wants.
///
/// # Errors
/// A pattern that is none.
pub fn filter(wanted: &Wanted) -> Result<EventFilter, Refusal> {
    let globs = |patterns: &[String]| {
        patterns
            .iter()
            .map(|text| pattern(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Refusal::Pattern { message: error.to_string() })
    };
    Ok(EventFilter {
        pids: wanted.pids.iter().copied().map(Pid).collect(),
        comms: globs(&wanted.comms)?,
        names: globs(&wanted.names)?,
        netns: wanted.netns.clone(),
        types: wanted.types.iter().filter_map(|name| Kind::called(name)).collect(),
        kinds: wanted.kinds.clone(),
        failed: if wanted.failed { Failed::Shown } else { Failed::Hidden },
    })
}
