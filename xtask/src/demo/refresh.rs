//! The third act: the daemon's sockets are replaced while it runs and clients count with it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{
    Figures,
    stage::{PATIENCE, Stage},
};

/// Connections that count, each at a number of its own.
const CLIENTS: usize = 5;
/// How often the sockets are replaced.
const REFRESHES: u32 = 3;

/// Plays it with a redis-server that listens at a path, and adds to the figures.
pub(super) fn act(
    stage: &Stage<'_>,
    server: u32,
    path: &Path,
    figures: &mut Figures,
) -> Result<()> {
    stage.say(
        "Its sockets are replaced while it runs. Five clients outside count with it all the while.",
    );
    let counted = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (path, counted, is_over) = (path.to_owned(), counted.clone(), is_over.clone());
            thread::spawn(move || count(&path, number, &counted, &is_over))
        })
        .collect();
    let played = (0..REFRESHES).try_for_each(|_| {
        goes_on(stage, &counted)?;
        stage.ucr(&format!("refresh --pid {server}")).show()
    });
    let played = played.and_then(|()| goes_on(stage, &counted));
    is_over.store(true, Relaxed);
    let mut jumps = 0;
    for client in clients {
        let ended = client.join().map_err(|_| anyhow::anyhow!("a client that counts panicked"))?;
        jumps += ended.context("count with redis-server")?;
    }
    played?;
    let counted = counted.load(Relaxed);
    println!(
        "It has not noticed: {counted} times counted, {jumps} times to another number than the next"
    );
    ensure!(jumps == 0, "a number was not the next one");
    figures.messages += counted;
    figures.jumps += jumps;
    Ok(())
}

/// Waits until all together have counted further.
fn goes_on(stage: &Stage<'_>, counted: &AtomicU64) -> Result<()> {
    let before = counted.load(Relaxed);
    stage.until("the clients to count", || Ok((counted.load(Relaxed) > before + 100).then_some(())))
}

/// One client: how often the answer was not the next number.
fn count(path: &Path, number: usize, counted: &AtomicU64, is_over: &AtomicBool) -> Result<u64> {
    let path: PathBuf = path.to_owned();
    let client = UnixStream::connect(path).context("connect")?;
    client.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    let mut answers = BufReader::new(client.try_clone().context("duplicate a descriptor")?);
    let mut client = client;
    let (mut last, mut jumps) = (0, 0);
    while !is_over.load(Relaxed) {
        client.write_all(format!("INCR count:{number}\r\n").as_bytes()).context("ask")?;
        let mut answer = String::new();
        answers.read_line(&mut answer).context("hear")?;
        let next: u64 = answer.trim().trim_start_matches(':').parse().context("read a number")?;
        jumps += u64::from(next != last + 1);
        last = next;
        counted.fetch_add(1, Relaxed);
    }
    Ok(jumps)
}
