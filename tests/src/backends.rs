//! Which backends there are on this kernel.

use std::{env, sync::OnceLock};

use serde_json::Value;
use ucr::tracer::hooks::Backend;

use crate::Ucr;

/// Those that can be attached, as `ucr features` says (a story holds that against the kernel).
///
/// # Panics
/// When `ucr features` does not say.
#[must_use]
pub fn attachable() -> &'static [Backend] {
    static KNOWN: OnceLock<Vec<Backend>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let report = Ucr::default().run(&["features", "--json"]).done().json();
        let offers = report.get("backends").and_then(Value::as_array).expect("a list of backends");
        let is_offered = |backend: &Backend| {
            let (name, available) = (Value::from(backend.name()), Value::from(true));
            offers.iter().any(|offer| {
                offer.get("backend") == Some(&name) && offer.get("available") == Some(&available)
            })
        };
        let tracing = [Backend::Trampoline, Backend::Tracepoint];
        tracing.into_iter().filter(is_offered).collect()
    })
}

/// Those of them that a test goes through which attaches each anew: only the one that the environment
/// chooses, if it does.
///
/// # Panics
/// As above.
#[must_use]
pub fn chosen() -> Vec<Backend> {
    let choice = env::var("UCR_BACKEND").ok();
    let is_chosen =
        |backend: &Backend| choice.as_ref().is_none_or(|choice| choice == backend.name());
    attachable().iter().copied().filter(is_chosen).collect()
}
