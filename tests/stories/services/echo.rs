//! An echo by UDP: what was asked before the dump is answered after the restore, also by another host.

use std::{net::UdpSocket, process::Stdio};

use ucr_tests::{
    Need, Program, Storm, needs,
    network::Stage,
    program::{PYTHON, python},
    wait,
};

use super::{dump_and_kill, watched};

const ECHO: &str = include_str!("echo.py");

/// So many small ones fit into a queue.
const WAITING: u32 = 200;

fn can() -> bool {
    needs::met(&[Need::Root, Need::Program("ip"), Need::Program(PYTHON)])
}

/// The number in the next answer.
fn next(client: &UdpSocket) -> u32 {
    let mut answer = [0; 4];
    assert_eq!(client.recv(&mut answer).expect("an answer"), 4);
    u32::from_be_bytes(answer)
}

fn story(stage: &Stage) {
    let (old, new, far) = (stage.first(), stage.second(), stage.far());
    let world = watched();
    let mut server = old.within(|| Program::start(&mut python(ECHO, &["at", "10.99.0.1"])));
    server.says("ready");
    let client = far.within(|| UdpSocket::bind("10.99.0.2:0").expect("a client"));
    client.set_read_timeout(Some(wait::patience())).expect("not for ever");
    let ask =
        |client: &UdpSocket, number: u32| client.send_to(&number.to_be_bytes(), "10.99.0.1:7");
    ask(&client, u32::MAX).expect("ask");
    assert_eq!(next(&client), u32::MAX);

    server.stop();
    for number in 0..WAITING {
        ask(&client, number).expect("ask");
    }
    // Somebody goes on asking all the time, whether there is a way or not.
    let asking = client.try_clone().expect("the same");
    let _storm = Storm::of(WAITING, move |number| drop(ask(&asking, number)));
    let image = old.within(|| dump_and_kill(&world, server));
    stage.unplug();
    let (socket, _) = image.only("unconnected");
    let go_on = python(ECHO, &["with", &socket]);
    let _server = new.within(|| image.restore(&go_on, Stdio::null()));
    stage.plug();
    for number in 0..WAITING {
        assert_eq!(next(&client), number);
    }
    // What came later is answered as well, if it was not lost meanwhile.
    let later = [next(&client), next(&client)];
    assert!(WAITING <= later[0] && later[0] < later[1], "{later:?}");
}

#[test]
fn what_waited_is_answered_after_the_restore() {
    if can() {
        story(&Stage::here());
    }
}

#[test]
fn what_waited_is_answered_by_another_host() {
    if can() {
        story(&Stage::moved());
    }
}
