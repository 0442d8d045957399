//! A process beside the workload that is never frozen: it has a listener, a connection that waits at
//! it, and one that waits for room. So in every comparison there is a socket that `connect` has
//! made and not connected (a frozen task gives its own up, and makes it anew afterwards), and there
//! are sockets that stand still, on which a fault can be planted.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with};
use ucr::sys::addr;

use crate::worker::Names;

/// Stands there until its standard input is closed.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let door = Names::new(folder).door();
    let new = || {
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("make a socket")
    };
    let listener = new()?;
    addr::bind(listener.as_fd(), &door).context("bind")?;
    listen(&listener, 0).context("listen")?;
    let first = new()?;
    addr::connect(first.as_fd(), &door).context("connect")?;
    let second = new()?;
    // It waits as long as the process lives.
    thread::spawn(move || addr::connect(second.as_fd(), &door));
    io::stdout().write_all(b"ready\n").context("greet")?;
    io::stdin().read_to_end(&mut Vec::new()).context("wait for the end")?;
    Ok(())
}
