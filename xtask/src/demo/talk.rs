//! The victims of the demo as it hears them: lines on standard output.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{Receiver, channel},
    thread,
};

use anyhow::{Context, Result, bail};

use super::{cleanup::Started, stage::PATIENCE};

/// A server and its clients, which write to one pipe.
pub(super) struct Talk {
    pub(super) pid: u32,
    orders: ChildStdin,
    lines: Receiver<String>,
}

/// A line: `KIND NAME KEY=VALUE…`.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    fields: BTreeMap<String, String>,
}

impl Line {
    /// A field as it stands there.
    pub(super) fn text(&self, key: &str) -> Result<&str> {
        let value = self.fields.get(key).map(String::as_str);
        value.with_context(|| format!("{} did not say its {key}", self.name))
    }

    /// A field that is a number.
    pub(super) fn number(&self, key: &str) -> Result<u64> {
        let text = self.text(key)?;
        text.parse().with_context(|| format!("understand {key}={text}"))
    }
}

impl Talk {
    /// Takes the pipes of what was started.
    pub(super) fn new(started: Started) -> Result<Self> {
        let orders = started.stdin.context("a pipe to the server")?;
        let lines = reading(started.stdout.context("a pipe from the server")?);
        Ok(Self { pid: started.pid, orders, lines })
    }

    /// Writes to the server, or to whoever reads the pipe.
    pub(super) fn tell(&mut self, text: &str) -> Result<()> {
        self.orders.write_all(text.as_bytes()).context("write to the server")
    }

    /// The next so many lines of a kind. A number that jumped, or a connection that broke, ends the
    /// demo.
    pub(super) fn hear(&self, kind: &str, count: usize) -> Result<Vec<Line>> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let line = self.lines.recv_timeout(PATIENCE).with_context(|| {
                format!("{} of {count} said `{kind}`, then no more was heard", heard.len())
            })?;
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            if word == "jump" || word == "broken" {
                bail!("the conversation failed: {line}");
            }
            if word == kind {
                heard.push(parse(rest));
            }
        }
        Ok(heard)
    }
}

fn parse(text: &str) -> Line {
    let mut words = text.split(' ').peekable();
    // The server's lines of its own state have no name.
    let name = words.next_if(|word| !word.contains('=')).unwrap_or("server").to_owned();
    let fields = words.filter_map(|word| word.split_once('='));
    Line { name, fields: fields.map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }
}

fn reading(pipe: ChildStdout) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}
