//! `ucr graph`: processes and the connections between them.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::ValueEnum;

use super::{
    access::{Access, AccessArgs},
    ask, exit,
    listing::with_conditions,
    ls::Conditions,
    report::say,
};
use crate::{
    daemon::protocol::About,
    inspect::{columns::columns, graph, picture::Picture},
    kernel::clock,
    query::listing::{Request, check},
    render::{
        graph::{dot, json, svg},
        output::unless_broken_pipe,
    },
    tracer::pins::PinDirectory,
};

/// Draw the processes and the unix sockets between them
///
/// Of the sockets that meet the conditions, and of what they are connected to. `ucr graph --format svg >
/// graph.svg` is a picture by itself; dot is for Graphviz.
#[derive(Clone, Debug, clap::Args)]
pub struct GraphArgs {
    #[command(flatten)]
    conditions: Conditions,
    /// Only sockets for which this holds (see `ucr ls --help`)
    #[arg(short = 'Q', long, value_name = "EXPRESSION", help_heading = "Which sockets")]
    filter: Option<String>,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    access: AccessArgs,
}

/// Forms of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For Graphviz
    #[default]
    Dot,
    /// Nodes and edges, names exact
    Json,
    /// A picture
    Svg,
}

/// Runs the verb.
///
/// # Errors
/// A filter that makes no sense; nobody who answers.
pub fn run(args: &GraphArgs, pins: &PinDirectory) -> anyhow::Result<ExitCode> {
    let typed = Request { filter: args.filter.clone(), ..Request::default() };
    check(&columns(), &typed, clock::realtime())?;
    let filter = with_conditions(args.filter.as_deref(), args.conditions.filter());
    let scope = args.conditions.scope();
    let (graph, notes) = match args.access.open(pins)? {
        Access::Kernel(kernel) => {
            let picture = Picture::take(&kernel.programs, kernel.store.as_ref(), scope)?;
            let graph = graph::of(&picture, filter.as_deref(), clock::realtime())?;
            (graph, picture.incomplete.clone())
        }
        Access::Daemon(client) => ask::graph(client, About::Graph { filter, scope })?,
    };
    let mut out = io::stdout().lock();
    let written = match args.format {
        Format::Dot => dot::write(&graph, &mut out),
        Format::Json => json::write(&graph, &mut out),
        Format::Svg => svg::write(&graph, &mut out),
    };
    unless_broken_pipe(written.and_then(|()| out.flush()))?;
    for note in notes {
        say(&format!("warning: {note}"));
    }
    Ok(ExitCode::from(exit::OK))
}
