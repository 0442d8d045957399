//! The text of a file, held against the table: every value is taken over or told of. Pure.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, Problem, Wrong,
    keys::{KEYS, Key, SECTIONS},
};
use crate::model::name::Escaped;

/// Longest value that is shown, in bytes.
const SHOWN: usize = 60;

/// Sets what the text sets, and returns all that is wrong with it, by line.
pub(super) fn apply(text: &str, config: &mut Config) -> Vec<Problem> {
    let mut work = Work { text, config, problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for (name, value) in document.get_ref() {
        work.section(name.get_ref(), &name.span(), value);
    }
    let understood = std::mem::take(&mut work.problems);
    for error in &errors {
        work.syntax(error);
    }
    let mut problems = work.problems;
    // What stands in a line that is no TOML was made up to go on.
    let broken: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    problems.extend(understood.into_iter().filter(|problem| !broken.contains(&problem.line)));
    problems.sort_by_key(|problem| problem.line);
    problems
}

struct Work<'a> {
    text: &'a str,
    config: &'a mut Config,
    problems: Vec<Problem>,
}

impl Work<'_> {
    fn section(&mut self, name: &str, span: &Range<usize>, value: &Spanned<DeValue<'_>>) {
        let known = SECTIONS.iter().map(|(known, _)| *known).find(|known| *known == name);
        match (known, value.get_ref().as_table()) {
            (Some(section), Some(keys)) => {
                for (name, value) in keys {
                    self.key(section, name.get_ref(), &name.span(), value);
                }
            }
            (Some(name), None) => self.problem(span, Wrong::NotASection { name }),
            (None, Some(_)) => {
                let sections = SECTIONS.iter().map(|(section, _)| *section);
                let nearest = sections.min_by_key(|section| distance(section, name));
                let nearest = nearest.filter(|section| is_near(section, name));
                let name = Escaped(name.as_bytes()).to_string();
                self.problem(span, Wrong::UnknownSection { name, nearest });
            }
            (None, None) => self.unknown("", name, span),
        }
    }

    fn key(
        &mut self,
        section: &'static str,
        name: &str,
        span: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(key) = KEYS.iter().find(|key| key.section == section && key.name == name) else {
            return self.unknown(section, name, span);
        };
        if key.rule.set(self.config, value.get_ref()).is_none() {
            let shown = self.shown(&value.span());
            let wrong = Wrong::Value { key: key.to_string(), value: shown, allowed: key.allowed() };
            self.problem(&value.span(), wrong);
        }
    }

    fn unknown(&mut self, section: &str, name: &str, span: &Range<usize>) {
        let nearest = nearest(section, name).map(Key::to_string);
        let name = Escaped(name.as_bytes());
        let name = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        self.problem(span, Wrong::UnknownKey { name, nearest });
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        let span = error.span().unwrap_or_default();
        let mut message = Escaped(error.message().as_bytes()).to_string();
        if !span.is_empty() {
            message = format!("{message}: {}", self.shown(&span));
        }
        self.problem(&span, Wrong::Syntax(message));
    }

    fn problem(&mut self, span: &Range<usize>, wrong: Wrong) {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        self.problems.push(Problem { line, wrong });
    }

    /// A value as it is written, on one line.
    fn shown(&self, span: &Range<usize>) -> String {
        let bytes = self.text.as_bytes().get(span.clone()).unwrap_or_default();
        match bytes.get(..SHOWN) {
            Some(start) if bytes.len() > SHOWN => format!("{}…", Escaped(start)),
            _ => Escaped(bytes).to_string(),
        }
    }
}

/// The known key that is most like an unknown one. The name weighs more than the section, since keys
/// also end up in the wrong one.
fn nearest(section: &str, name: &str) -> Option<&'static Key> {
    let likeness = |key: &&Key| (distance(key.name, name), key.section != section);
    KEYS.iter().min_by_key(likeness).filter(|key| is_near(key.name, name))
}

fn distance(known: &str, given: &str) -> usize {
    // A name longer than any known one by far is like none, and the distance takes the product of
    // both lengths to find.
    if given.len() > 64 { usize::MAX } else { strsim::osa_distance(known, given) }
}

/// Whether a slip of the fingers can have made one of the other: a third of the letters at most, and
/// rather two than one.
fn is_near(known: &str, given: &str) -> bool {
    let longest = known.len().max(given.len());
    distance(known, given) <= (longest / 3).max(2)
}
