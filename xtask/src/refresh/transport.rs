//! What programs and their clients talk over, and where a server listens.

use std::{
    fmt::{self, Display, Formatter},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use anyhow::{Context, Result};

/// What they talk over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Sockets under paths.
    Unix,
    /// Ports of [`Ipv4Addr::LOCALHOST`].
    Tcp,
}

impl Transport {
    /// For people, and for the name of a folder.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }

    /// Where a server can listen: at this path, or at a port that is free now.
    pub(super) fn at(self, path: PathBuf) -> Result<Where> {
        match self {
            Self::Unix => Ok(Where::Path(path)),
            Self::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                let address = listener.and_then(|listener| listener.local_addr());
                Ok(Where::Port(address.context("find a free port")?.port()))
            }
        }
    }
}

/// Where a server listens. It is shown as `programs/where.py` understands it.
#[derive(Debug)]
pub(super) enum Where {
    Path(PathBuf),
    Port(u16),
}

impl Display for Where {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(formatter, "{}", path.display()),
            Self::Port(port) => write!(formatter, "{}:{port}", Ipv4Addr::LOCALHOST),
        }
    }
}

impl Where {
    /// Whether somebody listens there.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Path(path) => UnixStream::connect(path).is_ok(),
            Self::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok(),
        }
    }
}
