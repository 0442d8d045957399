//! A listing: which rows, which columns, in what order, or how many of each.

mod request;

use std::{
    cmp::{Ordering, Reverse},
    collections::{HashMap, HashSet},
    iter,
};

use serde::{Deserialize, Serialize};

pub use request::{Purpose, Request, RequestError, resolve};

use super::{Column, Side, Value, column::nearest, expression::Expression};

/// The column that [`Request::count_by`] adds.
pub const COUNT: &str = "count";

/// A column of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Its name.
    pub name: String,
    /// Its alignment.
    pub side: Side,
}

/// Rows that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The columns.
    pub headings: Vec<Heading>,
    /// A value for each heading, row by row.
    pub rows: Vec<Vec<Value>>,
    /// How many rows there would be without the limit.
    pub matched: u64,
    /// Among how many the filter has chosen.
    pub examined: u64,
}

/// What becomes of the rows that were asked for: they come one after the other, so that who only prints them
/// need not hold them.
pub trait Sink {
    /// The columns; once, before all rows.
    fn headings(&mut self, headings: &[Heading]);

    /// A row: a value for each heading.
    fn row(&mut self, cells: impl Iterator<Item = Value>);
}

impl Sink for Listing {
    fn headings(&mut self, headings: &[Heading]) {
        headings.clone_into(&mut self.headings);
    }

    fn row(&mut self, cells: impl Iterator<Item = Value>) {
        self.rows.push(cells.collect());
    }
}

/// How much there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// As in [`Listing::matched`].
    pub matched: u64,
    /// As in [`Listing::examined`].
    pub examined: u64,
    /// How many rows were given.
    pub shown: u64,
}

impl Listing {
    /// How much there was.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let Self { matched, examined, .. } = *self;
        Extent { matched, examined, shown: wide(self.rows.len()) }
    }
}

/// Answers a request with a [`Listing`]; see [`list_into`].
///
/// # Errors
/// As of [`list_into`].
pub fn list<T>(
    rows: impl IntoIterator<Item = T>,
    columns: &[Column<T>],
    request: &Request,
    now: u64,
) -> Result<Listing, RequestError> {
    let mut listing = Listing::default();
    let Extent { matched, examined, .. } = list_into(rows, columns, request, now, &mut listing)?;
    Ok(Listing { matched, examined, ..listing })
}

/// Answers a request. `now`: what the filter's lengths of time are counted back from, in
/// nanoseconds since the epoch.
///
/// Only the columns that are needed are evaluated, and those that are only shown only for rows that
/// are.
///
/// # Errors
/// Columns that are not there, a filter that makes no sense; what the sink has had by then is worth nothing.
pub fn list_into<T>(
    rows: impl IntoIterator<Item = T>,
    columns: &[Column<T>],
    request: &Request,
    now: u64,
    sink: &mut impl Sink,
) -> Result<Extent, RequestError> {
    let mut filter = match &request.filter {
        Some(text) => {
            Some(Expression::parse(text, columns, now).map_err(RequestError::filter(text))?)
        }
        None => None,
    };
    let mut examined = 0;
    let wanted = rows.into_iter().filter(|row| {
        examined += 1;
        filter.as_mut().is_none_or(|filter| filter.holds(row))
    });
    let limit = request.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let (shown, matched);
    if request.count_by.is_empty() {
        let chosen = choose(columns, &request.columns, Purpose::Show)?;
        let sort = keys(columns, |column| column.name, &request.sort)?;
        sink.headings(&chosen.iter().map(|column| Heading::of(column)).collect::<Vec<_>>());
        (shown, matched) = pick(wanted, &chosen, &sort, limit, sink);
    } else {
        let chosen = choose(columns, &request.count_by, Purpose::Count)?;
        let count = Heading { name: COUNT.to_owned(), side: Side::Right };
        let all: Vec<_> = chosen.iter().map(|column| Heading::of(column)).chain([count]).collect();
        let sort = keys(&all, |heading| &heading.name, &request.sort)?;
        sink.headings(&all);
        (shown, matched) = count_by(wanted, &chosen, &sort, limit, sink);
    }
    match filter.and_then(|filter| filter.misfit()) {
        Some(error) => {
            Err(RequestError::filter(request.filter.as_deref().unwrap_or_default())(error))
        }
        None => Ok(Extent { matched: wide(matched), examined, shown: wide(shown) }),
    }
}

impl Heading {
    fn of<T>(column: &Column<T>) -> Self {
        Self { name: column.name.to_owned(), side: column.side }
    }
}

/// The columns of these names, each once; all of them for no names.
fn choose<'a, T>(
    columns: &'a [Column<T>],
    names: &[String],
    purpose: Purpose,
) -> Result<Vec<&'a Column<T>>, RequestError> {
    if names.is_empty() {
        return Ok(columns.iter().collect());
    }
    let mut seen = HashSet::new();
    names
        .iter()
        .filter(|name| seen.insert(name.as_str()))
        .map(|name| find(columns, |column| column.name, name, purpose).map(|(_, column)| column))
        .collect()
}

/// The one of this name, and where it stands.
fn find<'a, C>(
    columns: &'a [C],
    name_of: impl Fn(&'a C) -> &'a str,
    name: &str,
    purpose: Purpose,
) -> Result<(usize, &'a C), RequestError> {
    columns.iter().enumerate().find(|(_, column)| name_of(column) == name).ok_or_else(|| {
        let nearest = nearest(name, columns.iter().map(&name_of)).map(str::to_owned);
        RequestError::UnknownColumn { name: name.to_owned(), purpose, nearest }
    })
}

/// Which way a column is sorted.
#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// A column that is sorted by.
struct Key<'a, C> {
    column: &'a C,
    /// Where it stands among the columns.
    place: usize,
    way: Way,
}

/// What to sort by. Of a column that is named twice the first mention decides.
fn keys<'a, C>(
    columns: &'a [C],
    name_of: impl Fn(&'a C) -> &'a str + Copy,
    sort: &[String],
) -> Result<Vec<Key<'a, C>>, RequestError> {
    let mut seen = HashSet::new();
    sort.iter()
        .map(|key| key.strip_prefix('-').map_or((Way::Up, key.as_str()), |name| (Way::Down, name)))
        .filter(|(_, name)| seen.insert(*name))
        .map(|(way, name)| {
            let (place, column) = find(columns, name_of, name, Purpose::Sort)?;
            Ok(Key { column, place, way })
        })
        .collect()
}

/// Looks whether a request makes sense, as far as can be told without any rows.
///
/// # Errors
/// As of [`list`].
pub fn check<T>(columns: &[Column<T>], request: &Request, now: u64) -> Result<(), RequestError> {
    list(iter::empty(), columns, request, now).map(drop)
}

/// Compares by one key after the other.
fn compare<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value, Way)>) -> Ordering {
    pairs
        .map(|(one, other, way)| match (one.is_absent(), other.is_absent(), way) {
            (false, false, Way::Up) => one.cmp(other),
            (false, false, Way::Down) => other.cmp(one),
            (one, other, _) => one.cmp(&other),
        })
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Gives the first rows in order; how many, and of how many.
fn pick<T>(
    mut wanted: impl Iterator<Item = T>,
    shown: &[&Column<T>],
    sort: &[Key<'_, Column<T>>],
    limit: usize,
    sink: &mut impl Sink,
) -> (usize, usize) {
    let mut give = |row: &T| sink.row(shown.iter().map(|column| (column.get)(row)));
    if sort.is_empty() {
        let given = wanted.by_ref().take(limit).map(|row| give(&row)).count();
        return (given, given + wanted.count());
    }
    let rows: Vec<T> = wanted.collect();
    let keys: Vec<Value> =
        rows.iter().flat_map(|row| sort.iter().map(|key| (key.column.get)(row))).collect();
    let mut order: Vec<(&[Value], &T)> = keys.chunks(sort.len()).zip(&rows).collect();
    order.sort_by(|(one, _), (other, _)| {
        compare(one.iter().zip(*other).zip(sort).map(|((one, other), key)| (one, other, key.way)))
    });
    (order.iter().take(limit).map(|(_, row)| give(row)).count(), rows.len())
}

/// Gives how many rows there are of each combination; of how many combinations, and how many there are.
fn count_by<T>(
    wanted: impl Iterator<Item = T>,
    shown: &[&Column<T>],
    sort: &[Key<'_, Heading>],
    limit: usize,
    sink: &mut impl Sink,
) -> (usize, usize) {
    let mut counts: HashMap<Vec<Value>, u64> = HashMap::new();
    let mut cells = Vec::new();
    for row in wanted {
        cells.clear();
        cells.extend(shown.iter().map(|column| (column.get)(&row)));
        match counts.get_mut(cells.as_slice()) {
            Some(count) => *count += 1,
            None => {
                counts.insert(cells.clone(), 1);
            }
        }
    }
    let mut counted: Vec<_> = counts.into_iter().map(|(cells, n)| (Reverse(n), cells)).collect();
    counted.sort_unstable();
    let with_count = |(Reverse(count), mut cells): (_, Vec<_>)| {
        cells.push(Value::Number(count));
        cells
    };
    let mut rows: Vec<Vec<Value>> = counted.into_iter().map(with_count).collect();
    rows.sort_by(|one, other| {
        let pair = |key: &Key<'_, _>| Some((one.get(key.place)?, other.get(key.place)?, key.way));
        compare(sort.iter().filter_map(pair))
    });
    let matched = rows.len();
    (rows.into_iter().take(limit).map(|cells| sink.row(cells.into_iter())).count(), matched)
}

fn wide(count: usize) -> u64 {
    // 64 bits at most, wherever this runs.
    count.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
