//! Debian's redis-server, which knows nothing of ucr.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use ucr_tests::{World, needs, wait};

/// A server on a unix socket; it is ended in any case.
pub(super) struct Redis {
    child: Child,
    pub(super) path: PathBuf,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Redis {
    /// Starts it, and waits until somebody can connect.
    pub(super) fn start(world: &World) -> (Self, UnixStream) {
        let path = world.path("redis.sock");
        let program = needs::find_program("redis-server").expect("redis-server");
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(world.folder());
        let child = command.spawn().expect("start redis-server");
        let server = Self { child, path };
        let first =
            wait::until("redis-server to listen", || UnixStream::connect(&server.path).ok());
        (server, first)
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }
}
