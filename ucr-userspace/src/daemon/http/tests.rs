//! The server asked over loopback, by clients that behave and by some that do not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Plenty of time, so that no slow machine fails a test that is about something else.
const PATIENT: Limits = Limits {
    connections: 2,
    request: Duration::from_secs(60),
    connection: Duration::from_secs(60),
};

/// Little, so that no test waits for long.
const SOON: Duration = Duration::from_millis(100);

/// What takes longer than this would have taken the time of [`PATIENT`].
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(30), what).await.expect("in time")
}

async fn page(page: Page) -> Result<String, Unavailable> {
    match page {
        Page::Metrics => Ok("# EOF\n".to_owned()),
        Page::Health => Err(Unavailable("not yet\n".to_owned())),
    }
}

/// Starts a server; it ends with the test's runtime.
fn server(limits: Limits) -> SocketAddr {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(serve(listener, limits, page));
    address
}

/// What comes back until the server closes; a reset is an end like any other.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    in_time(stream.read_to_end(&mut bytes)).await.ok();
    String::from_utf8(bytes).expect("text")
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // The server may have had enough before all is sent.
    stream.write_all(request.as_bytes()).await.ok();
    rest(&mut stream).await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test]
async fn metrics_are_given_as_open_metrics_and_the_connection_is_closed() {
    let answer = ask(server(PATIENT), &get("/metrics")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n# EOF\n"), "{answer}");
}

#[tokio::test]
async fn who_cannot_answer_says_why() {
    let answer = ask(server(PATIENT), &get("/healthz")).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot yet\n"), "{answer}");
}

#[tokio::test]
async fn other_pages_and_methods_are_refused() {
    let address = server(PATIENT);
    for path in ["/", "/metrics/", "/etc/passwd", "/../metrics", "/metricsx"] {
        let answer = ask(address, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {answer}");
    }
    for method in ["POST", "HEAD", "DELETE", "BREW"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{method}: {answer}");
        assert!(answer.contains("allow: GET\r\n"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn garbage_is_refused_and_the_next_client_served() {
    let address = server(PATIENT);
    let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for garbage in ["\0\x01\x02\r\n\r\n", "hello\r\n\r\n", "GET\r\n\r\n", &endless, &headers] {
        let answer = ask(address, garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Bytes behind the request are nobody's.
    let more = format!("{}{}", get("/metrics"), get("/healthz"));
    let answer = ask(address, &more).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(ask(address, &get("/metrics")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn clients_that_send_nothing_or_half_a_request_are_let_go_and_others_served() {
    let address = server(Limits { request: SOON, ..PATIENT });
    let mut silent = TcpStream::connect(address).await.expect("connected");
    let mut slow = TcpStream::connect(address).await.expect("connected");
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.expect("sent");
    // Both seats are taken; this one waits until one is free.
    assert!(ask(address, &get("/metrics")).await.starts_with("HTTP/1.1 200"));
    assert!(!rest(&mut silent).await.contains(" 200 "));
    assert!(!rest(&mut slow).await.contains(" 200 "));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let limits = Limits { connections: 1, connection: SOON, ..PATIENT };
    // More than all buffers on the way hold.
    let give = async |_| Ok("x".repeat(64 << 20));
    tokio::spawn(serve(listener, limits, move |page| Box::pin(give(page))));
    let mut greedy = TcpStream::connect(address).await.expect("connected");
    greedy.write_all(get("/metrics").as_bytes()).await.expect("sent");
    assert!(ask(address, &get("/x")).await.starts_with("HTTP/1.1 404"));
    assert!(rest(&mut greedy).await.len() < 64 << 20);
}

#[tokio::test]
async fn a_slow_page_gives_up_its_seat() {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let limits = Limits { connections: 1, connection: SOON, ..PATIENT };
    tokio::spawn(serve(listener, limits, |_| std::future::pending()));
    assert_eq!(ask(address, &get("/metrics")).await, "");
    assert!(ask(address, &get("/x")).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn dropped_it_ends_its_connections() {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let server = tokio::spawn(serve(listener, PATIENT, page));
    let mut client = TcpStream::connect(address).await.expect("connected");
    assert!(ask(address, &get("/metrics")).await.starts_with("HTTP/1.1 200"));
    server.abort();
    assert_eq!(rest(&mut client).await, "");
    assert!(TcpStream::connect(address).await.is_err());
}
