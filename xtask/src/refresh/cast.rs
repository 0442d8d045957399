//! The programs whose sockets are replaced, and who talks with them.
//!
//! All of them can be made to listen at paths alone, and some at ports of TCP alone; what else they have are pairs of
//! their own. PostgreSQL before version 15 could not: its statistics went through a UDP socket.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    postgres,
    transport::{Transport, Where},
};
use crate::{
    commands,
    setup::{self, Outcome},
};

/// Debian's: the first one in `PATH` may be a script that takes long to find another one.
const PYTHON: &str = "/usr/bin/python3";

/// A program, and what it takes to talk with it.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// Installs it, if it is not there.
    pub(super) ensure: fn() -> Result<Outcome>,
    /// What it talks over, if it is told to.
    pub(super) over: &'static [Transport],
    /// How it is started.
    pub(super) cast: fn(&Stage) -> Result<Cast>,
}

/// Where all takes place.
pub(super) struct Stage {
    /// Everything that is written is in there.
    pub(super) folder: PathBuf,
    pub(super) transport: Transport,
}

impl Stage {
    /// Where a server can listen: over unix sockets, under this name.
    fn at(&self, name: &str) -> Result<Where> {
        self.transport.at(self.folder.join(name))
    }
}

/// Who takes part.
pub(super) struct Cast {
    /// In this order; the last one is the program itself.
    pub(super) servers: Vec<Server>,
    pub(super) client: Client,
    /// PostgreSQL leaves something behind if it is just killed: where its process id is.
    pub(super) pid_file: Option<PathBuf>,
}

/// A command, and where it listens.
pub(super) struct Server {
    pub(super) command: Vec<String>,
    pub(super) at: Where,
}

/// What talks with it.
pub(super) struct Client {
    /// Some Python, to which the part that all have in common is added.
    code: &'static str,
    /// Connections that stay.
    connections: u32,
}

impl Client {
    fn new(code: &'static str, connections: u32) -> Self {
        Self { code, connections }
    }

    /// The command that starts it.
    pub(super) fn command(&self, at: &Where, newcomers: u32) -> Vec<String> {
        let code = [include_str!("programs/talk.py"), self.code].concat();
        let mut command = python(&code, &at.to_string());
        command.extend([self.connections, newcomers].map(|number| number.to_string()));
        command
    }
}

const UNIX: &[Transport] = &[Transport::Unix];
const BOTH: &[Transport] = &[Transport::Unix, Transport::Tcp];

/// All of them.
pub(super) const PROGRAMS: [Program; 7] = [
    Program { name: "redis", ensure: nothing, over: BOTH, cast: redis },
    Program { name: "postgresql", ensure: setup::ensure_postgres, over: BOTH, cast: postgresql },
    Program { name: "nginx", ensure: nothing, over: BOTH, cast: nginx },
    Program { name: "dbus-daemon", ensure: setup::ensure_dbus, over: UNIX, cast: dbus },
    Program { name: "python-asyncio", ensure: nothing, over: BOTH, cast: asyncio },
    Program { name: "node", ensure: setup::ensure_node, over: BOTH, cast: node },
    Program { name: "ssh-agent", ensure: nothing, over: UNIX, cast: agent },
];

/// The ordinary set-up has it.
fn nothing() -> Result<Outcome> {
    Ok(Outcome::NothingMissing)
}

/// A command that runs some Python, which understands where a server listens.
pub(super) fn python(code: &str, argument: &str) -> Vec<String> {
    let code = [include_str!("programs/where.py"), code].concat();
    words(&[PYTHON, "-c", &code, argument])
}

/// A path on a command line or in a configuration.
pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}

fn found(program: &str) -> Result<String> {
    let path = commands::in_path(program).with_context(|| format!("find the program {program}"))?;
    Ok(text(&path))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Debian's `nobody` and its group.
const NOBODY: u32 = 65_534;

/// The beginning of a command that is not run as root.
pub(super) fn as_nobody() -> Vec<String> {
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    let [setpriv, others, end] = ["setpriv", "--clear-groups", "--"].map(str::to_owned);
    [setpriv].into_iter().chain(ids).chain([others, end]).collect()
}

/// A folder that belongs to `nobody`.
pub(super) fn of_nobody(folder: &Path) -> Result<PathBuf> {
    let own = folder.join("own");
    fs::create_dir(&own).with_context(|| format!("create {}", own.display()))?;
    chown(&own, Some(NOBODY), Some(NOBODY))
        .with_context(|| format!("give {} to nobody", own.display()))?;
    Ok(own)
}

/// With one server and nothing else.
fn simple(command: Vec<String>, at: Where, client: Client) -> Cast {
    Cast { servers: vec![Server { command, at }], client, pid_file: None }
}

fn redis(stage: &Stage) -> Result<Cast> {
    let at = stage.at("redis.sock")?;
    let mut command = vec![found("redis-server")?];
    command.extend(words(&["--save", "", "--loglevel", "warning", "--dir", &text(&stage.folder)]));
    command.extend(match &at {
        Where::Path(path) => words(&["--port", "0", "--unixsocket", &text(path)]),
        Where::Port(port) => words(&["--bind", "127.0.0.1", "--port", &port.to_string()]),
    });
    Ok(simple(command, at, Client::new(include_str!("programs/redis.py"), 50)))
}

fn postgresql(stage: &Stage) -> Result<Cast> {
    let made = postgres::make(stage)?;
    let client = Client::new(include_str!("programs/postgres.py"), 10);
    let pid_file = Some(made.pid_file);
    Ok(Cast { servers: vec![made.server], client, pid_file })
}

/// Two workers hand requests on to a server behind them, by connections that they keep.
const NGINX: &str = "
    daemon off;
    user root;
    worker_processes 2;
    pid nginx.pid;
    error_log stderr;
    events {}
    http {
        access_log off;
        client_body_temp_path body;
        proxy_temp_path proxy;
        fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi;
        scgi_temp_path scgi;
        # As many as one likes: it closes no connection by itself, and a failure shows.
        keepalive_requests 1000000000;
        proxy_next_upstream off;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        upstream behind {
            server BEHIND;
            keepalive 4;
            keepalive_requests 1000000000;
        }
        server {
            listen FRONT;
            location / { proxy_pass http://behind; }
        }
    }
";

fn nginx(stage: &Stage) -> Result<Cast> {
    let folder = &stage.folder;
    let (front, behind) = (stage.at("front.sock")?, stage.at("behind.sock")?);
    let file = folder.join("nginx.conf");
    let name = |at: &Where| match at {
        Where::Path(path) => format!("unix:{}", path.display()),
        Where::Port(_) => at.to_string(),
    };
    let configuration = NGINX.replace("FRONT", &name(&front)).replace("BEHIND", &name(&behind));
    fs::write(&file, configuration).with_context(|| format!("write {}", file.display()))?;
    let nginx = [found("nginx")?, "-p".to_owned(), text(folder), "-c".to_owned(), text(&file)];
    let upstream = python(include_str!("programs/upstream.py"), &behind.to_string());
    let servers = [(upstream, behind), (nginx.into(), front)];
    let servers = servers.map(|(command, at)| Server { command, at });
    let client = Client::new(include_str!("programs/nginx.py"), 8);
    Ok(Cast { servers: servers.into(), client, pid_file: None })
}

/// A bus on which everybody may do everything.
const BUS: &str = r#"
<busconfig>
    <type>session</type>
    <listen>unix:path=PATH</listen>
    <auth>EXTERNAL</auth>
    <policy context="default">
        <allow send_destination="*" eavesdrop="true"/>
        <allow eavesdrop="true"/>
        <allow own="*"/>
        <allow user="*"/>
    </policy>
</busconfig>
"#;

/// Not as root: a bus that has the right to it opens a netlink socket, to tell the audit of what it refuses.
fn dbus(stage: &Stage) -> Result<Cast> {
    let folder = &stage.folder;
    let (path, file) = (of_nobody(folder)?.join("bus.sock"), folder.join("bus.conf"));
    fs::write(&file, BUS.replace("PATH", &text(&path)))
        .with_context(|| format!("write {}", file.display()))?;
    let mut command = as_nobody();
    command.extend([found("dbus-daemon")?, "--config-file".to_owned(), text(&file)]);
    // It would have a socket to the system's log.
    command.extend(words(&["--nofork", "--nopidfile", "--nosyslog"]));
    Ok(simple(command, Where::Path(path), Client::new(include_str!("programs/dbus.py"), 8)))
}

fn asyncio(stage: &Stage) -> Result<Cast> {
    let at = stage.at("echo.sock")?;
    let command = python(include_str!("programs/echoing.py"), &at.to_string());
    Ok(simple(command, at, Client::new(include_str!("programs/echo.py"), 10)))
}

fn node(stage: &Stage) -> Result<Cast> {
    let (at, file) = (stage.at("echo.sock")?, stage.folder.join("echoing.js"));
    fs::write(&file, include_str!("programs/echoing.js"))
        .with_context(|| format!("write {}", file.display()))?;
    // Versions that use io_uring do not if they are told so.
    let mut command = words(&["env", "UV_USE_IO_URING=0"]);
    command.extend([found("node")?, text(&file), at.to_string()]);
    Ok(simple(command, at, Client::new(include_str!("programs/echo.py"), 10)))
}

fn agent(stage: &Stage) -> Result<Cast> {
    let path = stage.folder.join("agent.sock");
    let command = vec![found("ssh-agent")?, "-D".to_owned(), "-a".to_owned(), text(&path)];
    Ok(simple(command, Where::Path(path), Client::new(include_str!("programs/agent.py"), 8)))
}
