//! Pipelines of requests to redis, of which one end is taken away before all is answered.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use ucr_tests::{
    Host, Need, Program, World, needs,
    network::Stage,
    program::{PYTHON, python},
    wait,
};

use super::{Image, dump_and_kill, length, watched};

const PIPELINE: &str = include_str!("pipeline.py");
const RELAY: &str = include_str!("relay.py");

fn can() -> bool {
    needs::met(&[
        Need::Root,
        Need::Program("ip"),
        Need::Program("redis-server"),
        Need::Program(PYTHON),
    ])
}

/// A server that saves its data, when it is told to, in the world's folder, and has what was saved there.
pub(crate) fn command(world: &World, options: &[&str]) -> Command {
    let mut redis = Command::new(needs::find_program("redis-server").expect("redis-server"));
    redis.args(["--save", "", "--loglevel", "warning", "--dir"]).arg(world.folder()).args(options);
    redis.stdin(Stdio::null());
    redis
}

/// Starts one.
fn redis(world: &World, options: &[&str]) -> Program {
    Program::start(&mut command(world, options))
}

/// The same, that listens at an address of a host.
fn redis_at(world: &World, host: &Host, address: &str) -> Program {
    let options = ["--bind", address, "--protected-mode", "no"];
    let server = host.within(|| redis(world, &options));
    let connect = || TcpStream::connect((address, 6379)).ok();
    drop(host.within(|| wait::until("redis to listen", connect)));
    server
}

fn of_a_client(stage: &Stage) {
    let (near, new, far) = (stage.first(), stage.second(), stage.far());
    let world = watched();
    let _server = redis_at(&world, far, "10.99.0.2");
    // It stops in the middle of an answer.
    let (count, read) = ("10000", "12345");
    let ask = || Program::start(&mut python(PIPELINE, &["ask", "10.99.0.2", count, read]));
    let mut client = near.within(ask);
    client.says("asked");
    let image = near.within(|| dump_and_kill(&world, client));
    let (connection, socket) = image.only("connected");
    let waiting = length(&socket["tcp"]["received"]["data"]);
    assert!((10_000..5_000_000).contains(&waiting), "{waiting} bytes of the answers");

    let hear = python(PIPELINE, &["hear", &connection, count, read]);
    stage.unplug();
    let mut other = new.within(|| image.restore(&hear, Stdio::null()));
    stage.plug();
    assert!(other.ends().success());
}

#[test]
fn the_answers_to_a_pipeline_come_to_another_client() {
    if can() {
        of_a_client(&Stage::here());
    }
}

#[test]
fn the_answers_to_a_pipeline_come_to_a_client_on_another_host() {
    if can() {
        of_a_client(&Stage::moved());
    }
}

/// Sends a request and reads an answer.
fn ask(client: &mut TcpStream, request: &str, answer: &str) {
    client.write_all(request.as_bytes()).expect("ask redis");
    hear(client, answer);
}

fn hear(client: &mut TcpStream, answers: &str) {
    let mut heard = vec![0; answers.len()];
    client.read_exact(&mut heard).expect("hear redis");
    assert!(heard == answers.as_bytes(), "{}", String::from_utf8_lossy(&heard));
}

fn connect(from: &Host) -> TcpStream {
    let client = from.within(|| TcpStream::connect("10.99.0.1:6379")).expect("connect to redis");
    client.set_read_timeout(Some(wait::patience())).expect("not for ever");
    client
}

fn of_a_server(stage: &Stage) {
    let (near, new, far) = (stage.first(), stage.second(), stage.far());
    let world = watched();
    let server = redis_at(&world, near, "10.99.0.1");
    let mut client = connect(far);
    let page = "x".repeat(100);
    ask(&mut client, &format!("SET page {page}\r\n"), "+OK\r\n");
    ask(&mut client, "INCR counter\r\n", ":1\r\n");
    ask(&mut client, "SAVE\r\n", "+OK\r\n");

    // What comes now nobody has read.
    server.stop();
    let requests = "INCR counter\r\nGET page\r\n".repeat(5_000);
    client.write_all(requests.as_bytes()).expect("ask redis");
    let pid = server.pid().to_string();
    wait::until("requests to arrive", || {
        let image = Image { world: &world, path: world.path("before") };
        near.within(|| world.ucr.run(&["dump", "--pid", &pid, "-o", &image.path()]).done());
        let (_, socket) = image.only("connected");
        (length(&socket["tcp"]["received"]["data"]) > 10_000).then_some(())
    });
    let image = near.within(|| dump_and_kill(&world, server));
    let (connection, _) = image.only("connected");
    let (listener, _) = image.only("listening");

    let path = world.path("redis.sock");
    let path = path.to_str().expect("text");
    let _fresh = redis(&world, &["--port", "0", "--unixsocket", path]);
    drop(wait::until("redis to listen", || UnixStream::connect(path).ok()));
    let relay = python(RELAY, &[path, &listener, &connection]);
    stage.unplug();
    let _relay = new.within(|| image.restore(&relay, Stdio::null()));
    stage.plug();
    let answers = (2..5_002).fold(String::new(), |mut answers, number| {
        write!(answers, ":{number}\r\n$100\r\n{page}\r\n").expect("text");
        answers
    });
    hear(&mut client, &answers);
    // Whoever comes later finds the listener.
    ask(&mut connect(far), "GET counter\r\n", "$4\r\n5001\r\n");
}

#[test]
fn a_pipeline_is_answered_by_another_server_with_the_same_data() {
    if can() {
        of_a_server(&Stage::here());
    }
}

#[test]
fn a_pipeline_is_answered_by_a_server_on_another_host() {
    if can() {
        of_a_server(&Stage::moved());
    }
}
