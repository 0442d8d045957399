//! Whether a row fulfils an expression.

use std::cmp::Ordering;

use globset::GlobSet;

use super::{
    Get,
    error::{ExpressionError, Problem},
    literal::Literal,
};
use crate::query::{Column, Value, value::Kind};

/// An expression, or a part of it.
pub(super) enum Node<T: ?Sized> {
    /// One of these holds.
    Any(Vec<Self>),
    /// All of these hold.
    All(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// There is something in the cell.
    Present(Get<T>),
    /// The cell stands in a relation to a literal.
    Compare(Box<Test<T>>),
}

/// How a cell stands to a literal.
pub(super) enum Relation {
    Equal,
    Ordered(Order),
    Like(Box<GlobSet>),
}

/// On which side of the literal.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Order {
    fn is_met_by(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::More => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

/// A comparison, and what it has met so far.
pub(super) struct Test<T: ?Sized> {
    column: &'static str,
    get: Get<T>,
    at: usize,
    against: Against,
    met: Met,
}

/// What a cell is compared with.
struct Against {
    relation: Relation,
    literal: Literal,
    /// What a cell shows, its memory used again.
    shown: String,
}

/// Whether a comparison has ever had a meaning.
#[derive(Clone, Copy)]
enum Met {
    /// There was nothing to compare.
    Nothing,
    /// Cells of this kind, with which the literal cannot be compared, and no others.
    Misfits(Kind),
    /// A cell with which it can.
    Fits,
}

impl<T: ?Sized> Node<T> {
    /// Whether it holds for a row.
    pub(super) fn holds(&mut self, row: &T) -> bool {
        match self {
            Self::Any(nodes) => nodes.iter_mut().any(|node| node.holds(row)),
            Self::All(nodes) => nodes.iter_mut().all(|node| node.holds(row)),
            Self::Not(node) => !node.holds(row),
            Self::Present(get) => !get(row).is_absent(),
            Self::Compare(test) => test.holds(row),
        }
    }

    /// The first comparison that has met misfits alone.
    pub(super) fn misfit(&self) -> Option<ExpressionError> {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().find_map(Self::misfit),
            Self::Not(node) => node.misfit(),
            Self::Present(_) => None,
            Self::Compare(test) => test.misfit(),
        }
    }
}

impl<T: ?Sized> Test<T> {
    /// Compares a column, which is named at `at`, with a literal.
    pub(super) fn new(column: &Column<T>, at: usize, relation: Relation, literal: Literal) -> Self {
        let against = Against { relation, literal, shown: String::new() };
        Self { column: column.name, get: column.get, at, against, met: Met::Nothing }
    }

    fn holds(&mut self, row: &T) -> bool {
        let value = (self.get)(row);
        match &value {
            Value::List(values) => values.iter().any(|value| self.holds_for(value)),
            value => self.holds_for(value),
        }
    }

    fn holds_for(&mut self, value: &Value) -> bool {
        if value.is_absent() {
            return false;
        }
        let outcome = self.against.compare(value);
        self.met = match (self.met, outcome) {
            (Met::Fits, _) | (_, Some(_)) => Met::Fits,
            (_, None) => Met::Misfits(value.kind()),
        };
        outcome.unwrap_or(false)
    }

    fn misfit(&self) -> Option<ExpressionError> {
        let Met::Misfits(holds) = self.met else {
            return None;
        };
        let (column, literal) = (self.column.to_owned(), self.against.literal.text.shown.clone());
        Some(ExpressionError::new(self.at, Problem::WrongKind { column, holds, literal }))
    }
}

impl Against {
    /// `None` if the literal cannot mean anything that this cell could be.
    fn compare(&mut self, value: &Value) -> Option<bool> {
        if let Relation::Like(glob) = &self.relation {
            show(value, &mut self.shown);
            return Some(glob.is_match(&self.shown));
        }
        let (number, literal) = match value {
            Value::Number(number) => (number, self.literal.number?),
            Value::Span(nanos) => (nanos, self.literal.span?),
            Value::Time(nanos) => (nanos, self.literal.time?),
            Value::Absent | Value::List(_) => return Some(false),
            Value::Text(_) | Value::Bytes(_) | Value::Name(_) => {
                return match self.relation {
                    Relation::Equal => {
                        show(value, &mut self.shown);
                        Some(self.shown == self.literal.text.shown)
                    }
                    _ => None,
                };
            }
        };
        let ordering = number.cmp(&literal);
        Some(match self.relation {
            Relation::Ordered(order) => order.is_met_by(ordering),
            _ => ordering.is_eq(),
        })
    }
}

fn show(value: &Value, text: &mut String) {
    text.clear();
    value.show_into(text);
}
