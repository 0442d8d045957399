//! Times for people: the room's own name for [`crate::model::time`].

pub use crate::model::time::{Duration, SinceBoot, Span, Utc, UtcMillis, UtcNanos, UtcSeconds};
