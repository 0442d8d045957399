//! A download by curl, whose server is taken away meanwhile and brought back.

use std::{
    fs::{self, File},
    io::Seek as _,
    path::Path,
    process::Command,
};

use ucr_tests::{
    Need, Program, needs,
    network::Stage,
    program::{PYTHON, python},
    wait,
};

use super::{content, dump_and_kill, has_begun, is_whole, length, size, watched};

const SERVER: &str = include_str!("server.py");

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program("ip"), Need::Program("curl"), Need::Program(PYTHON)])
}

/// Has curl fetch all that the server has.
fn curl(into: &Path) -> Program {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--output"]).arg(into);
    Program::start(curl.arg("http://10.99.0.1"))
}

fn story(stage: &Stage) {
    let (old, new, far) = (stage.first(), stage.second(), stage.far());
    let world = watched();
    let (file, fetched) = (world.path("file"), world.path("fetched"));
    fs::write(&file, content()).expect("a file");
    let mut file = File::open(&file).expect("the file");
    let input = |file: &File| file.try_clone().expect("the same open file");
    let mut serve = python(SERVER, &["serve", "10.99.0.1"]);
    let mut server = old.within(|| Program::start(serve.stdin(input(&file))));
    server.says("ready");
    let mut client = far.within(|| curl(&fetched));
    has_begun(&fetched);
    let image = old.within(|| dump_and_kill(&world, server));

    // What curl's host had acknowledged curl gets, and no end.
    let sent = usize::try_from(file.stream_position().expect("how far it was")).expect("a size");
    assert!(sent < content().len(), "the dump was too late");
    let (connection, socket) = image.only("connected");
    let (listener, _) = image.only("listening");
    let received = sent - length(&socket["tcp"]["sent"]["data"]);
    wait::until("curl to have what had come", || (size(&fetched) >= received).then_some(()));
    assert!(size(&fetched) <= sent);
    assert!(client.is_alive());

    stage.unplug();
    let go_on = python(SERVER, &["go-on", &listener, &connection]);
    let _server = new.within(|| image.restore(&go_on, input(&file).into()));
    stage.plug();
    assert!(client.ends().success());
    is_whole(&fetched);

    // And who listened listens.
    let again = world.path("again");
    assert!(far.within(|| curl(&again)).ends().success());
    is_whole(&again);
}

#[test]
fn a_download_goes_on_from_a_restored_server() {
    if can() {
        story(&Stage::here());
    }
}

#[test]
fn a_download_goes_on_from_a_server_on_another_host() {
    if can() {
        story(&Stage::moved());
    }
}
