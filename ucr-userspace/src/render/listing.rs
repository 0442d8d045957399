//! A listing for people, aligned and made to fit, and for programs, as JSON.

use std::{
    borrow::Borrow,
    fmt::{self, Write as _},
    io::{self, BufWriter, Write},
    iter,
};

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeStruct as _},
};

use crate::{
    model::name::OneLine,
    query::{
        Column, Side, Value,
        listing::{Heading, Listing, Sink},
        value::Json,
    },
};

/// Blanks between two columns.
const GAP: usize = 2;
/// A column of words is not cut below this.
const NARROWEST: usize = 8;
/// What is written at once, in bytes.
const PIECE: usize = 65_536;

/// How a listing is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Characters on a line; `None`: as many as it takes.
    pub width: Option<usize>,
    /// The first line.
    pub header: Header,
}

/// Whether the columns' names stand above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// In capitals.
    #[default]
    Shown,
    /// Not at all.
    Hidden,
}

/// Writes a listing as a table; see [`Table::print`].
///
/// # Errors
/// The writer's.
pub fn table(listing: &Listing, layout: Layout, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::default();
    table.headings(&listing.headings);
    for row in &listing.rows {
        table.add(row.iter());
    }
    table.print(layout, out)
}

/// A table in the making: all cells as they are shown, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headings: Vec<Heading>,
    /// Printable ASCII alone: a byte is a character wide.
    text: String,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// The longest of each column, its header included.
    widths: Vec<usize>,
}

impl Sink for Table {
    fn headings(&mut self, headings: &[Heading]) {
        headings.clone_into(&mut self.headings);
        self.widths = headings.iter().map(|heading| heading_text(heading).len()).collect();
    }

    fn row(&mut self, cells: impl Iterator<Item = Value>) {
        self.add(cells);
    }
}

impl Table {
    /// Adds a row. One that is too short is filled up: a listing may have come through a socket.
    fn add(&mut self, cells: impl Iterator<Item = impl Borrow<Value>>) {
        let mut cells = cells.fuse();
        for widest in &mut self.widths {
            let start = self.text.len();
            match cells.next() {
                Some(value) => value.borrow().show_into(&mut self.text),
                None => Value::Absent.show_into(&mut self.text),
            }
            self.ends.push(self.text.len());
            *widest = (*widest).max(self.text.len() - start);
        }
    }

    /// Writes it: columns as wide as what they hold. If that is wider than there is room, the widest columns
    /// of words are cut, and if that does not help, the lines.
    ///
    /// # Errors
    /// The writer's.
    pub fn print(&self, layout: Layout, out: &mut impl Write) -> io::Result<()> {
        let room = layout.width.unwrap_or(usize::MAX);
        let columns = fit(&self.widths, &self.headings, room);
        if columns.is_empty() {
            return Ok(());
        }
        let is_too_wide = total(columns.iter().map(|(width, _)| *width)) > room;
        let mut lines =
            Lines { columns: &columns, cut: is_too_wide.then_some(room), text: String::new() };
        lines.text.reserve(PIECE + PIECE / 4);
        if layout.header == Header::Shown {
            let header: Vec<String> = self.headings.iter().map(heading_text).collect();
            lines.push(header.iter());
        }
        let mut start = 0;
        for ends in self.ends.chunks(columns.len()) {
            lines.push(ends.iter().map(|&end| {
                let cell = self.text.get(start..end).unwrap_or_default();
                start = end;
                cell
            }));
            if lines.text.len() >= PIECE {
                out.write_all(lines.text.as_bytes())?;
                lines.text.clear();
            }
        }
        out.write_all(lines.text.as_bytes())
    }
}

fn heading_text(heading: &Heading) -> String {
    OneLine(&heading.name).to_string().to_ascii_uppercase()
}

/// Lines that have been laid out and not yet written.
struct Lines<'a> {
    columns: &'a [(usize, Side)],
    /// At how many characters lines are cut.
    cut: Option<usize>,
    text: String,
}

impl Lines<'_> {
    fn push(&mut self, cells: impl Iterator<Item = impl AsRef<str>>) {
        let line = self.text.len();
        let last = self.columns.len().saturating_sub(1);
        for (index, (cell, &(width, side))) in cells.zip(self.columns).enumerate() {
            let cell = cell.as_ref();
            let gap = if index == last { 0 } else { GAP };
            let padding = width.saturating_sub(cell.len());
            match side {
                Side::Right => blanks(padding, &mut self.text),
                Side::Left => {}
            }
            push_cut(cell, width, &mut self.text);
            match side {
                Side::Left if index < last => blanks(padding + gap, &mut self.text),
                _ => blanks(gap, &mut self.text),
            }
        }
        if let Some(room) = self.cut {
            let whole = self.text.split_off(line);
            push_cut(&whole, room, &mut self.text);
        }
        self.text.push('\n');
    }
}

/// The width of a line with columns of these widths.
fn total(widths: impl ExactSizeIterator<Item = usize>) -> usize {
    widths.len().saturating_sub(1) * GAP + widths.sum::<usize>()
}

/// How wide the columns become, so that they fit: the widest ones of words give way first, but never
/// to less than their header.
fn fit(widths: &[usize], headings: &[Heading], room: usize) -> Vec<(usize, Side)> {
    let mut columns: Vec<(usize, Side)> =
        widths.iter().copied().zip(headings.iter().map(|heading| heading.side)).collect();
    let mut excess = total(widths.iter().copied()).saturating_sub(room);
    while excess > 0 {
        let yielding = columns.iter_mut().zip(headings).filter(|((width, side), heading)| {
            *side == Side::Left && *width > heading.name.len().max(NARROWEST)
        });
        let Some(((width, _), _)) = yielding.max_by_key(|((width, _), _)| *width) else {
            break;
        };
        *width -= 1;
        excess -= 1;
    }
    columns
}

/// Appends a text, or as much of it as there is room for.
fn push_cut(text: &str, room: usize, lines: &mut String) {
    // More bytes than characters has only a line in which something has been cut already.
    if text.len() <= room || text.chars().count() <= room {
        lines.push_str(text);
    } else if let Some(rest) = room.checked_sub(1) {
        lines.extend(text.chars().take(rest));
        lines.push('…');
    }
}

fn blanks(count: usize, lines: &mut String) {
    const BLANKS: &str = "                                ";
    match BLANKS.get(..count) {
        Some(blanks) => lines.push_str(blanks),
        None => lines.extend(iter::repeat_n(' ', count)),
    }
}

/// Writes a listing as one JSON document: `columns`, `rows` (an object each), `matched` (how many
/// rows there would be without a limit) and `examined`.
///
/// # Errors
/// The writer's.
pub fn json(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(PIECE, out);
    serde_json::to_writer(&mut out, &Document(listing))?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes a listing's rows as JSON objects, a line each.
///
/// # Errors
/// The writer's.
pub fn jsonl(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(PIECE, out);
    for row in &listing.rows {
        serde_json::to_writer(&mut out, &Object(&listing.headings, row))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

struct Document<'a>(&'a Listing);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Listing { headings, rows, matched, examined } = self.0;
        let names: Vec<&str> = headings.iter().map(|heading| heading.name.as_str()).collect();
        let mut fields = serializer.serialize_struct("Listing", 4)?;
        fields.serialize_field("columns", &names)?;
        fields.serialize_field("rows", &Objects(headings, rows))?;
        fields.serialize_field("matched", matched)?;
        fields.serialize_field("examined", examined)?;
        fields.end()
    }
}

struct Objects<'a>(&'a [Heading], &'a [Vec<Value>]);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.1.iter().map(|row| Object(self.0, row)))
    }
}

struct Object<'a>(&'a [Heading], &'a [Value]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(Some(self.0.len()))?;
        for (heading, value) in self.0.iter().zip(self.1.iter().chain(iter::repeat(&Value::Absent)))
        {
            fields.serialize_entry(&heading.name, &Json(value))?;
        }
        fields.end()
    }
}

/// The columns that there are, each with what it is about, a line each.
#[must_use]
pub fn columns_help<T>(columns: &[Column<T>]) -> String {
    let widest = columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
    let mut lines = String::new();
    for Column { name, about, .. } in columns {
        // Writing to a string cannot fail.
        let _: fmt::Result = writeln!(lines, "{name:widest$}  {about}");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixName;

    fn listing() -> Listing {
        let heading = |name: &str, side| Heading { name: name.into(), side };
        let row = |pid, comm: &[u8], name: &str, peer: Value| {
            let name = Value::Name(UnixName::from_sun_path(name.as_bytes()));
            vec![Value::Number(pid), Value::Bytes(comm.into()), name, peer]
        };
        Listing {
            headings: vec![
                heading("pid", Side::Right),
                heading("comm", Side::Left),
                heading("name", Side::Left),
                heading("peer", Side::Right),
            ],
            rows: vec![
                row(1, b"systemd", "/run/systemd/private/notify", Value::Absent),
                row(12345, b"a\n", "\0abstract", Value::Number(7)),
            ],
            matched: 9,
            examined: 10,
        }
    }

    fn shown(listing: &Listing, layout: Layout) -> String {
        let mut out = Vec::new();
        table(listing, layout, &mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    fn within(width: usize) -> String {
        shown(&listing(), Layout { width: Some(width), ..Layout::default() })
    }

    #[test]
    fn columns_are_aligned_and_as_wide_as_what_they_hold() {
        let wide = [
            "  PID  COMM     NAME                         PEER",
            "    1  systemd  /run/systemd/private/notify     -",
            "12345  a\\x0a    @abstract                       7",
        ]
        .join("\n")
            + "\n";
        assert_eq!(shown(&listing(), Layout::default()), wide);
        assert_eq!(within(49), wide);
    }

    #[test]
    fn without_a_header_there_are_only_rows() {
        let layout = Layout { header: Header::Hidden, ..Layout::default() };
        let shown = shown(&listing(), layout);
        assert_eq!(shown.lines().count(), 2);
        assert!(shown.starts_with("    1  systemd"));
    }

    #[test]
    fn the_widest_words_are_cut_until_all_fits() {
        let cut = [
            "  PID  COMM     NAME         PEER",
            "    1  systemd  /run/syste…     -",
            "12345  a\\x0a    @abstract       7",
        ]
        .join("\n")
            + "\n";
        assert_eq!(within(33), cut);
        // Eight characters are left, and then the lines are cut.
        let lines = [
            "  PID  COMM     NAME    …",
            "    1  systemd  /run/sy……",
            "12345  a\\x0a    @abstra……",
        ]
        .join("\n")
            + "\n";
        assert_eq!(within(25), lines);
        assert_eq!(within(1), "…\n…\n…\n");
        assert_eq!(within(0), "\n\n\n");
    }

    #[test]
    fn several_wide_columns_are_cut_alike() {
        let mut wide = listing();
        wide.rows[0][1] = Value::Bytes(vec![b'x'; 30]);
        let layout = Layout { width: Some(43), ..Layout::default() };
        let shown = shown(&wide, layout);
        assert!(shown.contains("    1  xxxxxxxxxxxxx…  /run/systemd/…     -\n"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() == 43), "{shown}");
    }

    #[test]
    fn a_last_column_of_words_is_not_padded() {
        let mut narrow = listing();
        narrow.headings.pop();
        assert!(shown(&narrow, Layout::default()).ends_with("@abstract\n"));
    }

    #[test]
    fn no_columns_are_nothing_and_missing_cells_are_absent() {
        let mut odd = listing();
        odd.rows[0].truncate(1);
        odd.rows[1].push(Value::Number(1));
        let text = shown(&odd, Layout::default());
        assert!(text.contains("    1  -      -             -\n"), "{text}");
        assert!(text.ends_with("    7\n"), "{text}");
        odd.headings.clear();
        assert_eq!(shown(&odd, Layout::default()), "");
    }

    #[test]
    fn json_is_a_document_or_a_line_for_each_row() {
        let mut small = listing();
        small.rows.truncate(1);
        small.rows[0].truncate(1);
        let written = |write: fn(&Listing, &mut Vec<u8>) -> io::Result<()>| {
            let mut out = Vec::new();
            write(&small, &mut out).expect("written");
            String::from_utf8(out).expect("text")
        };
        let row = r#"{"pid":1,"comm":null,"name":null,"peer":null}"#;
        assert_eq!(written(jsonl), format!("{row}\n"));
        let head = r#"{"columns":["pid","comm","name","peer"],"rows":["#;
        assert_eq!(written(json), format!("{head}{row}],\"matched\":9,\"examined\":10}}\n"));
    }

    #[test]
    fn a_pipe_that_is_closed_is_told_as_such() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kind = |result: io::Result<()>| result.expect_err("an error").kind();
        assert_eq!(
            kind(table(&listing(), Layout::default(), &mut Closed)),
            io::ErrorKind::BrokenPipe
        );
        assert_eq!(kind(json(&listing(), &mut Closed)), io::ErrorKind::BrokenPipe);
        assert_eq!(kind(jsonl(&listing(), &mut Closed)), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_columns_are_explained() {
        let column =
            |name, about| Column::<()> { name, about, side: Side::Left, get: |()| Value::Absent };
        let help = columns_help(&[column("pid", "Process"), column("socket", "Its number")]);
        assert_eq!(help, "pid     Process\nsocket  Its number\n");
    }
}
