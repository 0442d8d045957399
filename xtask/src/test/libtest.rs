//! What test programs print, and what the tests say that skip.

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Skipped(String),
}

/// A test and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) verdict: Verdict,
}

/// The tests that a program, or several in a row, told of.
pub(super) fn tests(output: &str) -> Vec<Test> {
    output.lines().filter_map(test).collect()
}

/// A line such as `test a::b ... ok`.
fn test(line: &str) -> Option<Test> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let verdict = match verdict.split_once(", ").unwrap_or((verdict, "")) {
        ("ok", "") => Verdict::Passed,
        ("FAILED", "") => Verdict::Failed,
        ("ignored", "") => Verdict::Skipped("ignored".to_owned()),
        ("ignored", why) => Verdict::Skipped(why.to_owned()),
        _ => return None,
    };
    let name = name.trim_end_matches(" - should panic");
    Some(Test { name: name.to_owned(), verdict })
}

/// Tests that skip pass, as far as the programs know. They say so in a file of lines that hold a
/// name, a tab, and the reason.
pub(super) fn skip(tests: &mut [Test], skipped: &str) {
    for (name, why) in skipped.lines().filter_map(|line| line.split_once('\t')) {
        let passed = tests.iter_mut().filter(|test| test.verdict == Verdict::Passed);
        for test in passed.filter(|test| test.name == name) {
            test.verdict = Verdict::Skipped(why.to_owned());
        }
    }
}

/// What the programs printed about their failed tests.
pub(super) fn failures(output: &str) -> String {
    /// A program with failed tests prints their output, then their names, each under such a heading.
    enum Place {
        Outside,
        Outputs,
        Names,
    }
    let mut place = Place::Outside;
    let mut text = String::new();
    for line in output.lines() {
        match place {
            Place::Outside if line == "failures:" => place = Place::Outputs,
            Place::Outputs if line == "failures:" => place = Place::Names,
            Place::Names if line.starts_with("test result: ") => place = Place::Outside,
            Place::Outputs => {
                text.push_str(line);
                text.push('\n');
            }
            Place::Outside | Place::Names => {}
        }
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Verdict::*, *};

    const OUTPUT: &str = "\nrunning 4 tests\ntest a::b ... ok\ntest a::c - should panic ... ok\n\
        test d has been running for over 60 seconds\ntest d ... FAILED\n\
        test src/lib.rs - f (line 3) ... ignored\ntest e ... ignored, no network\n\n\
        failures:\n\n---- d stdout ----\nleft behind\n    more\n\n\nfailures:\n    d\n\n\
        test result: FAILED. 2 passed; 1 failed\n";

    fn made(name: &str, verdict: Verdict) -> Test {
        Test { name: name.to_owned(), verdict }
    }

    #[test]
    fn tests_are_read_with_their_verdicts() {
        let expected = [
            made("a::b", Passed),
            made("a::c", Passed),
            made("d", Failed),
            made("src/lib.rs - f (line 3)", Skipped("ignored".to_owned())),
            made("e", Skipped("no network".to_owned())),
        ];
        assert_eq!(tests(OUTPUT), expected);
    }

    #[test]
    fn what_a_failed_test_printed_is_found() {
        let text = format!("noise\n{OUTPUT}\nrunning 1 test\n{OUTPUT}");
        let one = "---- d stdout ----\nleft behind\n    more";
        assert_eq!(failures(&text), format!("{one}\n\n\n\n{one}"));
        assert_eq!(failures("test a ... ok\n\ntest result: ok. 1 passed\n"), "");
    }

    #[test]
    fn a_test_that_skips_has_not_passed() {
        let mut tests = vec![made("a", Passed), made("b", Failed), made("c", Passed)];
        skip(&mut tests, "a\tneeds root\nb\tneeds perl\nx\ty\nno tab\n");
        let why = Skipped("needs root".to_owned());
        assert_eq!(tests, [made("a", why), made("b", Failed), made("c", Passed)]);
    }
}
