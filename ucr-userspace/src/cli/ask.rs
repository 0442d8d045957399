//! Questions to the daemon, and its answers put together.

use crate::{
    daemon::{
        client::{Client, ClientError},
        protocol::{About, Reply},
        status::Status,
    },
    query::{graph::Graph, listing::Listing, who::Answer},
};

/// Asks for a listing; with what goes with it.
///
/// # Errors
/// See [`ClientError`].
pub fn listing(client: Client, about: About) -> Result<(Listing, Vec<String>), ClientError> {
    let mut answers = client.ask(about)?;
    let (mut listing, mut notes) = (Listing::default(), Vec::new());
    while let Some(reply) = answers.hear()? {
        match reply {
            Reply::Listing { headings, matched, examined } => {
                listing = Listing { headings, matched, examined, rows: Vec::new() };
            }
            Reply::Rows(rows) => listing.rows.extend(rows),
            Reply::Note(note) => notes.push(note),
            _ => return Err(ClientError::OffTopic),
        }
    }
    Ok((listing, notes))
}

/// Asks for a graph; with what goes with it.
///
/// # Errors
/// See [`ClientError`].
pub fn graph(client: Client, about: About) -> Result<(Graph, Vec<String>), ClientError> {
    let mut answers = client.ask(about)?;
    let (mut graph, mut notes) = (Graph::default(), Vec::new());
    while let Some(reply) = answers.hear()? {
        match reply {
            Reply::Graph(found) => graph = *found,
            Reply::Note(note) => notes.push(note),
            _ => return Err(ClientError::OffTopic),
        }
    }
    Ok((graph, notes))
}

/// Asks how the daemon is.
///
/// # Errors
/// See [`ClientError`].
pub fn status(client: Client) -> Result<Status, ClientError> {
    match client.ask(About::Status)?.hear()? {
        Some(Reply::Status(status)) => Ok(*status),
        _ => Err(ClientError::OffTopic),
    }
}

/// Asks who is on the other end.
///
/// # Errors
/// See [`ClientError`].
pub fn who(client: Client, about: About) -> Result<Answer, ClientError> {
    let mut answers = client.ask(about)?;
    match answers.hear()? {
        Some(Reply::Who(answer)) => Ok(*answer),
        _ => Err(ClientError::OffTopic),
    }
}
