//! A program out of Debian's packages, which knows nothing of ucr.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use ucr_tests::{Need, needs, outside, ucr::REFUSED, wait};

use super::stock::Redis;
use crate::world;

fn says(client: &mut UnixStream, request: &str, answer: &str) {
    client.write_all(request.as_bytes()).expect("ask the server");
    let mut buffer = vec![0; answer.len()];
    client.read_exact(&mut buffer).expect("hear the server");
    assert_eq!(String::from_utf8_lossy(&buffer), answer);
}

#[test]
fn a_stock_server_is_dumped_and_does_not_notice() {
    if !needs::met(&[Need::Root, Need::Program("redis-server")]) {
        return;
    }
    let world = world();
    world.ucr.attach();
    let (server, mut client) = Redis::start(&world);
    let path = server.path.clone();
    says(&mut client, "SET story told\r\n", "+OK\r\n");

    let pid = server.pid().to_string();
    let image = world.path("image").display().to_string();
    let dump = || world.ucr.run(&["dump", "--json", "--pid", &pid, "-o", &image]);
    // With a client outside it is refused, and the client is named.
    let refused = dump().ended(REFUSED).json();
    let holder = &refused["obstacles"][0]["holders"][0]["pid"];
    assert_eq!(holder, std::process::id(), "{refused:#}");
    says(&mut client, "GET story\r\n", "$4\r\ntold\r\n");

    let held = || outside::sockets(server.pid()).len();
    let with_client = held();
    drop(client);
    wait::until("the server to let the client go", || (held() < with_client).then_some(()));
    let report = dump().done().json();
    assert_eq!(report["counts"]["confirmed"], 1, "{report:#}");
    assert_eq!(report["sockets"][0]["name"]["text"], path.to_str().expect("text"));
    assert_eq!(report["sockets"][0]["state"], "listening");

    let mut client = UnixStream::connect(&path).expect("connect again");
    says(&mut client, "GET story\r\n", "$4\r\ntold\r\n");
}
