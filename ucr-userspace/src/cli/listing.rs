//! What all listings have in common on the command line: columns, filter, order, form.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use super::{exit, report::say};
use crate::{
    kernel::clock,
    query::{
        Column, Value,
        listing::{Extent, Heading, Listing, Request, RequestError, Sink, check, resolve},
    },
    render::{
        listing::{self, Header, Layout, Table},
        output::unless_broken_pipe,
        terminal::terminal_width,
    },
};

/// What is to be shown of rows, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What to show")]
pub struct ListingArgs {
    /// Columns, separated by commas; +COLUMN adds to the usual ones (--columns lists them)
    #[arg(short = 'o', long = "output", value_name = "COLUMNS")]
    output: Option<String>,
    /// List the columns that there are, and end
    #[arg(long)]
    pub columns: bool,
    /// Only rows for which this holds: `recv_q > 64K and not (comm =~ "systemd*" or peer)`. Columns are
    /// compared by == != < <= > >=, matched by =~ !~ (glob), joined by and, or, not; a column alone: it is there.
    /// Sizes have K M G, lengths of time ms s m h d
    #[arg(short = 'Q', long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Sort by columns, separated by commas; -COLUMN: descending
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', allow_hyphen_values = true)]
    sort: Vec<String>,
    /// No more rows than this
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Instead of rows: how many there are with each value of these columns
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    count_by: Vec<String>,
    /// One JSON document, in which names are exact
    #[arg(long, conflicts_with = "jsonl")]
    json: bool,
    /// One JSON object a line
    #[arg(long)]
    jsonl: bool,
    /// No line with the names of the columns
    #[arg(long)]
    no_header: bool,
}

impl ListingArgs {
    /// As a request; with more conditions, all of which have to hold.
    #[must_use]
    pub fn request(&self, defaults: &[&str], conditions: Option<String>) -> Request {
        Request {
            columns: resolve(self.output.as_deref().unwrap_or("+"), defaults),
            filter: with_conditions(self.filter.as_deref(), conditions),
            sort: self.sort.clone(),
            limit: self.limit,
            count_by: self.count_by.clone(),
        }
    }

    /// Looks whether what was typed makes sense, before anybody is asked: as it was typed, without more
    /// conditions, so that what is wrong can be pointed at.
    ///
    /// # Errors
    /// Columns that are not there, a filter that makes no sense.
    pub fn check<T>(&self, columns: &[Column<T>], defaults: &[&str]) -> Result<(), RequestError> {
        check(columns, &self.request(defaults, None), clock::realtime())
    }

    /// Prints which columns there are.
    ///
    /// # Errors
    /// Standard output's.
    pub fn print_columns<T>(&self, columns: &[Column<T>]) -> anyhow::Result<ExitCode> {
        let written = io::stdout().write_all(listing::columns_help(columns).as_bytes());
        unless_broken_pipe(written)?;
        Ok(ExitCode::from(exit::OK))
    }

    /// Where rows go that are printed in the form that was asked for.
    #[must_use]
    pub fn sink(&self) -> Output {
        if self.json || self.jsonl {
            Output::Listing(Listing::default())
        } else {
            Output::Table(Table::default())
        }
    }

    /// Prints a listing that is there already.
    ///
    /// # Errors
    /// Standard output's.
    pub fn print_listing(&self, found: Listing, notes: &[String]) -> anyhow::Result<ExitCode> {
        let extent = found.extent();
        self.print(&Output::Listing(found), extent, notes)
    }

    /// Prints what has become of rows.
    ///
    /// # Errors
    /// Standard output's.
    pub fn print(
        &self,
        output: &Output,
        extent: Extent,
        notes: &[String],
    ) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout().lock();
        let header = if self.no_header { Header::Hidden } else { Header::Shown };
        let layout = Layout { width: terminal_width(), header };
        let written = match output {
            Output::Listing(found) if self.json => listing::json(found, &mut out),
            Output::Listing(found) if self.jsonl => listing::jsonl(found, &mut out),
            Output::Listing(found) => listing::table(found, layout, &mut out),
            Output::Table(table) => table.print(layout, &mut out),
        };
        unless_broken_pipe(written.and_then(|()| out.flush()))?;
        for note in notes {
            say(&format!("warning: {note}"));
        }
        if extent.shown < extent.matched && self.count_by.is_empty() {
            say(&format!("{} of {} rows are shown (--limit)", extent.shown, extent.matched));
        }
        Ok(ExitCode::from(exit::OK))
    }
}

/// Rows on their way to standard output.
#[derive(Clone, Debug)]
pub enum Output {
    /// As they are.
    Listing(Listing),
    /// As text already, which takes less room.
    Table(Table),
}

impl Output {
    /// With how many rows were found for it.
    #[must_use]
    pub fn with(self, extent: Extent) -> Self {
        let Extent { matched, examined, .. } = extent;
        match self {
            Self::Listing(listing) => Self::Listing(Listing { matched, examined, ..listing }),
            Self::Table(table) => Self::Table(table),
        }
    }
}

impl Sink for Output {
    fn headings(&mut self, headings: &[Heading]) {
        match self {
            Self::Listing(listing) => listing.headings(headings),
            Self::Table(table) => table.headings(headings),
        }
    }

    fn row(&mut self, cells: impl Iterator<Item = Value>) {
        match self {
            Self::Listing(listing) => listing.row(cells),
            Self::Table(table) => table.row(cells),
        }
    }
}

/// A filter as it was typed, with more conditions, all of which have to hold.
#[must_use]
pub fn with_conditions(filter: Option<&str>, conditions: Option<String>) -> Option<String> {
    match (filter, conditions) {
        (Some(filter), Some(more)) => Some(format!("({filter}) and {more}")),
        (filter, more) => filter.map(str::to_owned).or(more),
    }
}

/// A condition of a filter: that a column has one of these values. `None` if there are none.
#[must_use]
pub fn any_of<V: AsRef<str>>(column: &str, operator: &str, values: &[V]) -> Option<String> {
    let terms: Vec<String> =
        values.iter().map(|v| format!("{column} {operator} {}", quoted(v.as_ref()))).collect();
    (!terms.is_empty()).then(|| format!("({})", terms.join(" or ")))
}

/// Conditions that all have to hold; `None` if there are none.
#[must_use]
pub fn all_of(conditions: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    (!conditions.is_empty()).then(|| conditions.join(" and "))
}

/// As a literal of the filter language. What is shown as an escape (`\\`, `\xNN`) is one there, too.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match escape_at(rest) {
            0 => {
                if matches!(character, '"' | '\\') {
                    quoted.push('\\');
                }
                character.len_utf8()
            }
            length => length,
        };
        let (taken, after) = rest.split_at(length);
        quoted.push_str(taken);
        rest = after;
    }
    quoted.push('"');
    quoted
}

/// How long the escape is that a text begins with; 0 if it begins with none.
fn escape_at(text: &str) -> usize {
    match text.as_bytes() {
        [b'\\', b'\\', ..] => 2,
        [b'\\', b'x', one, other, ..] if one.is_ascii_hexdigit() && other.is_ascii_hexdigit() => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined_and_their_values_quoted() {
        let condition = all_of([
            any_of("pid", "==", &["1", "2"]),
            any_of::<String>("name", "=~", &[]),
            any_of("name", "=~", &["a\"b\\"]),
        ]);
        let expected = r#"(pid == "1" or pid == "2") and (name =~ "a\"b\\")"#;
        assert_eq!(condition.as_deref(), Some(expected));
        assert_eq!(all_of([]), None);
        let shown = any_of("name", "=~", &[r"@a\x00\\é\q\x0*"]);
        assert_eq!(shown.as_deref(), Some(r#"(name =~ "@a\x00\\é\\q\\x0*")"#));
    }
}
