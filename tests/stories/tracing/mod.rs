//! What live tracing sees, and how it is started, followed and stopped.

mod attaching;
mod closing;
mod events;
mod following;
mod pins;
mod seeding;
mod slow_readers;

use serde_json::Value;

/// Bytes in JSON: as text, where they are text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().or_else(|| value["text"].as_str()).unwrap_or_default()
}

/// The inode of a socket or peer in an event.
pub(crate) fn inode(value: &Value) -> u64 {
    value["inode"].as_u64().unwrap_or_default()
}
