//! What somebody wants to see, and what can be wrong with it.

use std::{collections::HashSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{model::name::OneLine, query::expression::ExpressionError};

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The columns by name, each shown once, where it is first named. None means all.
    pub columns: Vec<String>,
    /// Only rows for which this holds (see [`super::super::expression`]).
    pub filter: Option<String>,
    /// Sort by these columns, the first one first; descending if there is a `-` before the name.
    /// What is absent comes last either way, and rows that are equal stay in their order.
    pub sort: Vec<String>,
    /// No more rows than this.
    pub limit: Option<u64>,
    /// Instead of `columns`: these, and how many rows there are with each combination of them; the
    /// most frequent first, if `sort` says nothing else (it may name only these columns and
    /// [`super::COUNT`]).
    pub count_by: Vec<String>,
}

/// A request that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RequestError {
    /// A column that is not there.
    #[error("there is no column `{}` to {purpose}", OneLine(name))]
    UnknownColumn {
        /// As it was written.
        name: String,
        /// What it was wanted for.
        purpose: Purpose,
        /// The one that is called most alike.
        nearest: Option<String>,
    },
    /// The filter.
    #[error("the filter makes no sense: {error}")]
    Filter {
        /// The filter.
        text: String,
        /// What is wrong with it, and where.
        error: ExpressionError,
    },
}

/// What a column is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// [`Request::columns`].
    Show,
    /// [`Request::sort`].
    Sort,
    /// [`Request::count_by`].
    Count,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Show => "show",
            Self::Sort => "sort by",
            Self::Count => "count by",
        })
    }
}

impl RequestError {
    /// For a filter with this text.
    pub fn filter(text: &str) -> impl Fn(ExpressionError) -> Self {
        move |error| Self::Filter { text: text.to_owned(), error }
    }

    /// The filter on a line, and a caret below the place that makes no sense.
    #[must_use]
    pub fn pointed(&self) -> Option<String> {
        match self {
            Self::Filter { text, error } => Some(error.pointed(text)),
            Self::UnknownColumn { .. } => None,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownColumn { nearest: Some(name), .. } => {
                Some(format!("did you mean `{name}`?"))
            }
            Self::UnknownColumn { .. } => None,
            Self::Filter { error, .. } => error.hint(),
        }
    }
}

/// The columns that a list in text means (`name,type,pid`): `defaults` if it is empty, and `defaults`
/// first if one of its names has a `+` before it.
#[must_use]
pub fn resolve(text: &str, defaults: &[&str]) -> Vec<String> {
    let names = || text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let defaults = match names().next().is_none() || names().any(|name| name.starts_with('+')) {
        true => defaults,
        false => &[],
    };
    let named = names().map(|name| name.trim_start_matches('+'));
    let mut seen = HashSet::from([""]);
    let all = defaults.iter().copied().chain(named);
    all.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}
