//! A download from nginx, whose client is taken away meanwhile: what is still to come another program reads.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use ucr_tests::{
    Host, Need, Program, needs,
    network::Stage,
    outside,
    program::{PYTHON, python},
    wait,
};

use super::{content, dump_and_kill, has_begun, is_whole, length, size, watched};

const READER: &str = include_str!("reader.py");

/// Nothing of it is outside of the folder that it is started in.
const CONFIGURATION: &str = "
    daemon off;
    master_process off;
    pid nginx.pid;
    error_log stderr;
    events {}
    http {
        log_format what '$status $body_bytes_sent $request_completion';
        access_log what.log what;
        sendfile on;
        client_body_temp_path body;
        proxy_temp_path proxy;
        fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi;
        scgi_temp_path scgi;
        server { listen 10.99.0.2:80; root files; }
    }
";

/// A server of the folder `files`, once somebody can connect.
fn nginx(folder: &Path, client: &Host, server: &Host) -> Program {
    fs::write(folder.join("nginx.conf"), CONFIGURATION).expect("a configuration");
    let mut nginx = Command::new(needs::find_program("nginx").expect("nginx"));
    nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    let nginx = server.within(|| Program::start(&mut nginx));
    let connect = || TcpStream::connect("10.99.0.2:80").ok();
    drop(client.within(|| wait::until("nginx to listen", connect)));
    nginx
}

/// Has curl stand still when it has written all that it has read, which is so while it waits.
fn stop_between_two_pieces(curl: &Program) {
    let is_waiting = || {
        let call = outside::blocked_in(curl.pid(), curl.pid());
        // The one after a signal goes on with the one before.
        [libc::SYS_poll, libc::SYS_restart_syscall].map(Some).contains(&call)
    };
    wait::until("curl to wait", || {
        curl.stop();
        let found = is_waiting().then_some(());
        if found.is_none() {
            curl.go_on();
        }
        found
    });
}

fn can() -> bool {
    needs::met(&[
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("nginx"),
        Need::Program(PYTHON),
    ])
}

fn story(stage: &Stage) {
    let (near, new, far) = (stage.first(), stage.second(), stage.far());
    let world = watched();
    fs::create_dir(world.path("files")).expect("a folder");
    fs::write(world.path("files/file"), content()).expect("a file");
    let _server = nginx(world.folder(), near, far);
    let fetched = world.path("fetched");
    let mut curl = Command::new("curl");
    // It takes four seconds at that rate.
    curl.args(["--silent", "--no-buffer", "--noproxy", "*", "--limit-rate", "25M"]);
    curl.args(["--header", "Connection: close", "http://10.99.0.2/file", "--output"]).arg(&fetched);
    let curl = near.within(|| Program::start(&mut curl));
    has_begun(&fetched);
    stop_between_two_pieces(&curl);
    let image = near.within(|| dump_and_kill(&world, curl));
    assert!(size(&fetched) < content().len(), "the dump was too late");
    let (connection, socket) = image.only("connected");
    assert!(length(&socket["tcp"]["received"]["data"]) > 0, "curl has left something");

    let file = fetched.display().to_string();
    let read = python(READER, &[&connection, &file]);
    stage.unplug();
    let mut reader = new.within(|| image.restore(&read, Stdio::null()));
    stage.plug();
    assert!(reader.ends().success());
    is_whole(&fetched);
    // To nginx it was a download like any other.
    let log = world.path("what.log");
    let log = wait::until("a line of its log", || {
        fs::read_to_string(&log).ok().filter(|log| log.ends_with('\n'))
    });
    assert_eq!(log, format!("200 {} OK\n", content().len()));
}

#[test]
fn what_curl_has_not_read_another_program_reads() {
    if can() {
        story(&Stage::here());
    }
}

#[test]
fn what_curl_has_not_read_a_program_on_another_host_reads() {
    if can() {
        story(&Stage::moved());
    }
}
