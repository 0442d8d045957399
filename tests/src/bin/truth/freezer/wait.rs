//! Waiting for what cannot be polled.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::poll::{PollTimeout, poll};

/// Only something that is broken takes longer, also in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds between two looks.
const GLANCE: u8 = 2;

/// Looks again and again.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("waited in vain until {what}");
        }
        // A signal that comes meanwhile is as good as a time-out.
        poll(&mut [], PollTimeout::from(GLANCE)).ok();
    }
    Ok(())
}
