//! A program out of Debian's packages, which knows nothing of ucr.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use ucr_tests::{Need, needs, outside, ucr::REFUSED, wait};

use crate::world;

/// Ends the server in any case.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

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
    let path = world.path("redis.sock");
    let program = needs::find_program("redis-server").expect("redis-server");
    let mut command = Command::new(program);
    command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(world.folder());
    let server = Server(command.spawn().expect("start redis-server"));
    let mut client = wait::until("the server to listen", || UnixStream::connect(&path).ok());
    says(&mut client, "SET story told\r\n", "+OK\r\n");

    let pid = server.0.id().to_string();
    let image = world.path("image").display().to_string();
    let dump = || world.ucr.run(&["dump", "--json", "--pid", &pid, "-o", &image]);
    // With a client outside it is refused, and the client is named.
    let refused = dump().ended(REFUSED).json();
    let holder = &refused["obstacles"][0]["holders"][0]["pid"];
    assert_eq!(holder, std::process::id(), "{refused:#}");
    says(&mut client, "GET story\r\n", "$4\r\ntold\r\n");

    let held = || outside::sockets(i32::try_from(server.0.id()).expect("a pid")).len();
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
