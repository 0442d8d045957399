//! Tokens as a tree: recursive descent, no deeper than [`MAX_DEPTH`].

use super::{
    MAX_DEPTH, MAX_LENGTH,
    error::{Expected, ExpressionError, Problem},
    evaluate::{Node, Order, Relation, Test},
    lexer::{Placed, Token, tokens},
    literal::{Literal, Operator, Text},
};
use crate::query::{Column, column::nearest};

/// Reads a whole expression.
pub(super) fn parse<T: ?Sized>(
    text: &str,
    columns: &[Column<T>],
    now: u64,
) -> Result<Node<T>, ExpressionError> {
    if text.len() > MAX_LENGTH {
        return Err(ExpressionError::new(0, Problem::TooLong));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, end: text.trim_end().len(), columns, now };
    let root = parser.any(0)?;
    match parser.tokens {
        [] => Ok(root),
        _ => Err(parser.unexpected(Expected::End)),
    }
}

struct Parser<'a, T: ?Sized> {
    /// Those that are left.
    tokens: &'a [Placed<'a>],
    /// Where the text ends.
    end: usize,
    columns: &'a [Column<T>],
    now: u64,
}

impl<'a, T: ?Sized> Parser<'a, T> {
    fn any(&mut self, depth: usize) -> Result<Node<T>, ExpressionError> {
        let mut nodes = vec![self.all(depth)?];
        while self.take(&Token::Or, "or") {
            nodes.push(self.all(depth)?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node<T>, ExpressionError> {
        let mut nodes = vec![self.one(depth)?];
        while self.take(&Token::And, "and") {
            nodes.push(self.one(depth)?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node<T>, ExpressionError> {
        let at = self.at();
        if depth > MAX_DEPTH {
            return Err(ExpressionError::new(at, Problem::TooDeep));
        }
        if self.take(&Token::Not, "not") {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&Token::Open, "") {
            let inner = self.any(depth + 1)?;
            return match self.take(&Token::Close, "") {
                true => Ok(inner),
                false => Err(self.unexpected(Expected::Closing)),
            };
        }
        match self.tokens.split_first() {
            Some((&Placed { token: Token::Word, source, .. }, rest)) if !is_keyword(source) => {
                let column = self.column(source, at)?;
                self.tokens = rest;
                self.comparison(column, at)
            }
            _ => Err(self.unexpected(Expected::Column)),
        }
    }

    /// What may follow a column, which stands at `at`.
    fn comparison(&mut self, column: &Column<T>, at: usize) -> Result<Node<T>, ExpressionError> {
        let Some((&Placed { token: Token::Operator(operator), .. }, rest)) =
            self.tokens.split_first()
        else {
            return Ok(Node::Present(column.get));
        };
        self.tokens = rest;
        let literal_at = self.at();
        let text = match self.tokens.split_first() {
            Some((Placed { token: Token::Quoted(text), .. }, rest)) => {
                self.tokens = rest;
                text.clone()
            }
            Some((&Placed { token: Token::Word, source, .. }, rest)) => {
                self.tokens = rest;
                Text::bare(source)
            }
            _ => return Err(self.unexpected(Expected::Literal)),
        };
        let literal = Literal::read(text, self.now);
        let relation = relation(operator, &literal)
            .map_err(|problem| ExpressionError::new(literal_at, problem))?;
        let test = Node::Compare(Box::new(Test::new(column, at, relation, literal)));
        Ok(match operator {
            Operator::NotEqual | Operator::NotLike => Node::Not(Box::new(test)),
            _ => test,
        })
    }

    fn column(&self, name: &str, at: usize) -> Result<&'a Column<T>, ExpressionError> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let nearest = nearest(name, self.columns.iter().map(|column| column.name));
            let (name, nearest) = (name.to_owned(), nearest.map(str::to_owned));
            ExpressionError::new(at, Problem::UnknownColumn { name, nearest })
        })
    }

    /// Takes the next token if it is this one, or this word.
    fn take(&mut self, wanted: &Token, word: &str) -> bool {
        match self.tokens.split_first() {
            Some((Placed { token, source, .. }, rest))
                if token == wanted || (*token == Token::Word && *source == word) =>
            {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    /// Where the next token begins.
    fn at(&self) -> usize {
        self.tokens.first().map_or(self.end, |placed| placed.at)
    }

    fn unexpected(&self, expected: Expected) -> ExpressionError {
        let found = self.tokens.first().map(|placed| placed.source.to_owned());
        ExpressionError::new(self.at(), Problem::Unexpected { expected, found })
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "and" | "or" | "not")
}

fn one_or<T: ?Sized>(mut nodes: Vec<Node<T>>, several: fn(Vec<Node<T>>) -> Node<T>) -> Node<T> {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => several(nodes.into_iter().chain(last).collect()),
    }
}

fn relation(operator: Operator, literal: &Literal) -> Result<Relation, Problem> {
    let order = match operator {
        Operator::Equal | Operator::NotEqual => return Ok(Relation::Equal),
        Operator::Like | Operator::NotLike => {
            let bad = |error: globset::Error| Problem::BadGlob { reason: error.kind().to_string() };
            return literal.glob().map(|glob| Relation::Like(Box::new(glob))).map_err(bad);
        }
        Operator::Less => Order::Less,
        Operator::AtMost => Order::AtMost,
        Operator::More => Order::More,
        Operator::AtLeast => Order::AtLeast,
    };
    match literal.has_order() {
        true => Ok(Relation::Ordered(order)),
        false => Err(Problem::NoOrder { literal: literal.text.shown.clone() }),
    }
}
