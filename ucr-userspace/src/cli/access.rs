//! Whom a question about live sockets is put to: the kernel itself, or the daemon.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::report::say;
use crate::{
    causes::one_line,
    daemon::client::{Client, ClientError},
    tracer::{
        TracerError, error::may_load, pins::PinDirectory, programs::Programs, session, store::Store,
    },
};

/// Where the daemon answers if nobody says otherwise.
pub const DEFAULT_CONTROL: &str = "/run/ucr/control.sock";

/// Whom to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The kernel where that is allowed, else the daemon
    #[default]
    Auto,
    /// The kernel itself: needs the rights that tracing needs
    Kernel,
    /// The daemon, which has to run
    Daemon,
}

/// How to get at answers.
#[derive(Clone, Debug, Args)]
pub struct AccessArgs {
    /// The daemon's control socket
    #[arg(long, env = "UCR_CONTROL", default_value = DEFAULT_CONTROL, value_name = "SOCKET")]
    pub control: PathBuf,
    /// Whom to ask
    #[arg(long, value_enum, default_value_t, env = "UCR_VIA")]
    pub via: Via,
}

/// Somebody who answers.
pub enum Access {
    /// The kernel.
    Kernel(Box<Kernel>),
    /// The daemon.
    Daemon(Client),
}

/// The kernel, asked by programs of our own.
pub struct Kernel {
    /// What is run.
    pub programs: Programs,
    /// The ledger, if tracing is attached.
    pub store: Option<Store>,
}

impl AccessArgs {
    /// Finds somebody who answers.
    ///
    /// # Errors
    /// Nobody does: the one that was asked for, or, by itself, neither.
    pub fn open(&self, pins: &PinDirectory) -> anyhow::Result<Access> {
        match self.via {
            Via::Kernel => Ok(Access::Kernel(Box::new(Kernel::open(pins)?))),
            Via::Daemon => Ok(Access::Daemon(Client::connect(&self.control)?)),
            Via::Auto if may_load() => Ok(Access::Kernel(Box::new(Kernel::open(pins)?))),
            Via::Auto => match Client::connect(&self.control) {
                Ok(client) => Ok(Access::Daemon(client)),
                // Then what is missing are the rights, not the daemon.
                Err(ClientError::NotThere { .. }) => {
                    Ok(Access::Kernel(Box::new(Kernel::open(pins)?)))
                }
                Err(error) => Err(error.into()),
            },
        }
    }
}

impl Kernel {
    /// With the programs of attached tracing, or, without it, with such as are loaded now.
    ///
    /// # Errors
    /// Pins that are not as they should be; the kernel's refusal.
    pub fn open(pins: &PinDirectory) -> Result<Self, TracerError> {
        match session::open(pins) {
            Ok(store) => Ok(Self { programs: Programs::open(pins)?, store: Some(store) }),
            Err(TracerError::NotAttached { .. }) => {
                Ok(Self { programs: Programs::load()?, store: None })
            }
            // The kernel can be asked all the same.
            Err(error @ (TracerError::Incomplete { .. } | TracerError::OtherVersion { .. })) => {
                say(&format!("warning: without what was tracked: {}", one_line(&error)));
                Ok(Self { programs: Programs::load()?, store: None })
            }
            Err(error) => Err(error),
        }
    }
}
