//! A small HTTP server for figures: `GET /metrics` and `GET /healthz`, nothing else.
//!
//! Whoever can reach it may ask, so it is careful: a connection is for one request, has little time, and
//! there are few at once. One that comes on top waits in the kernel until another is done, which its time
//! sees to.

use std::{convert::Infallible, future::Future, io, net, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time,
};

use super::metrics;

/// What is granted to clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// How long a client may take for its request.
    pub request: Duration,
    /// How long a connection may last, all in all.
    pub connection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8,
            request: Duration::from_secs(5),
            connection: Duration::from_secs(15),
        }
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`: OpenMetrics text, see [`metrics::exposition`].
    Metrics,
    /// `/healthz`: a word for people, if all is well.
    Health,
}

/// A page cannot be given now: the client gets 503 and this text, which it may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// Room that a request's lines and headers get, in bytes: the least that hyper can do with.
const MAX_REQUEST: usize = 8192;
/// How long we wait when no connection can be taken, since descriptors or memory have run out.
const RECOVERY: Duration = Duration::from_millis(100);

/// Serves pages for as long as it is polled; dropped, it ends all connections. `give` is asked for each
/// page anew.
///
/// # Errors
/// What is wrong with the listener.
pub async fn serve<G, F>(listener: net::TcpListener, limits: Limits, give: G) -> io::Result<()>
where
    G: Fn(Page) -> F + Send + Sync + 'static,
    F: Future<Output = Result<String, Unavailable>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (give, seats) = (Arc::new(give), Arc::new(Semaphore::new(limits.connections)));
    let mut connections = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return Ok(()) };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Who went away meanwhile is nobody's trouble; else it would be the same again at once.
            Err(error) => {
                tracing::debug!("a client of the metrics could not be taken: {error}");
                time::sleep(RECOVERY).await;
                continue;
            }
        };
        let give = Arc::clone(&give);
        connections.spawn(async move {
            let talk = converse(stream, limits, give.as_ref());
            match time::timeout(limits.connection, talk).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a client of the metrics was let go: {error}"),
                Err(_) => tracing::debug!("a client of the metrics took too long"),
            }
            drop(seat);
        });
    }
}

async fn converse<G, F>(stream: TcpStream, limits: Limits, give: &G) -> hyper::Result<()>
where
    G: Fn(Page) -> F,
    F: Future<Output = Result<String, Unavailable>>,
{
    let answer = service_fn(async |request| Ok::<_, Infallible>(answer(&request, give).await));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(MAX_REQUEST)
        // A scrape every few seconds needs none, and who keeps one keeps others out.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer<G, F>(request: &Request<Incoming>, give: &G) -> Response<Full<Bytes>>
where
    G: Fn(Page) -> F,
    F: Future<Output = Result<String, Unavailable>>,
{
    let (page, kind) = match request.uri().path() {
        "/metrics" => (Page::Metrics, metrics::CONTENT_TYPE),
        "/healthz" => (Page::Health, PLAIN),
        _ => return response(StatusCode::NOT_FOUND, PLAIN, "there is /metrics and /healthz\n"),
    };
    if request.method() != Method::GET {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refusal;
    }
    match give(page).await {
        Ok(text) => response(StatusCode::OK, kind, text),
        Err(Unavailable(why)) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn response(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
