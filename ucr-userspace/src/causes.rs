//! An error and its causes on one line. Pure.

use std::error::Error;

/// All causes, parted by colons. Some libraries repeat a cause in their own text, and a verifier's
/// log has thousands of lines: neither is said here.
#[must_use]
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        let text = text.split(VERIFIER_LOG).next().unwrap_or_default().trim_end().to_owned();
        let text = text.trim_end_matches('.');
        if line.ends_with(text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text);
    }
    line
}

/// The error and what caused it, outermost first.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The errno at the bottom of it, if that is what it comes down to.
#[must_use]
pub fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error).find_map(|e| e.downcast_ref::<std::io::Error>())?.raw_os_error()
}

/// How aya introduces a verifier's log.
const VERIFIER_LOG: &str = "Verifier output:";

/// A verifier's log, if there is one and it says something.
#[must_use]
pub fn verifier_log(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error).find_map(|cause| {
        let text = cause.to_string();
        let (_, log) = text.split_once(VERIFIER_LOG)?;
        (!log.trim().is_empty()).then(|| log.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn causes_are_said_once() {
        let error = |text| Outer { text, source: io::Error::from_raw_os_error(libc::EPERM) };
        assert_eq!(one_line(&error("load x")), "load x: Operation not permitted (os error 1)");
        assert_eq!(
            one_line(&error("the call returned Operation not permitted (os error 1).")),
            "the call returned Operation not permitted (os error 1)"
        );
        assert_eq!(
            one_line(&error("refused. Verifier output: 1\n2\n3")),
            "refused: Operation not permitted (os error 1)"
        );
        assert_eq!(errno(&error("x")), Some(libc::EPERM));
        let log = |text| verifier_log(&error(text));
        assert_eq!(log("refused. Verifier output: 1\n2").as_deref(), Some(" 1\n2"));
        assert_eq!(log("refused. Verifier output: "), None);
    }
}
