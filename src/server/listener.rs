//! Listening, and ending in order: readiness first, then the socket, then the requests in flight.

use super::answer::Answer;
use super::connections::{self, Connection, Connections};
use super::refusals::Refusals;
use super::write_timeout::WriteTimeout;
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{Domain, Protocol, Socket, Type};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tower::Service as _;

/// How long a client may take to send a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head, in bytes, with everything else that is read ahead of a request; also how much of an answer is held for
/// a client that does not take it. It is what a connection costs at most before its request is looked at.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client may take nothing of an answer.
const WRITE_PAUSE: Duration = Duration::from_secs(10);

/// How long a request that has arrived already may take to be read once the socket is closed.
const LAST_READ: Duration = Duration::from_millis(200);

/// How long a client may then take to send the rest of a head.
const LAST_HEADS: Duration = Duration::from_secs(2);

/// Connections that the kernel holds for us while we are busy accepting.
const BACKLOG: i32 = 1024;

/// No socket to listen on; says which variable to change.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.line())]
pub struct BindError {
    host: IpAddr,
    port: u16,
    source: io::Error,
}

impl BindError {
    pub(super) fn new(host: IpAddr, port: u16, source: io::Error) -> Self {
        Self { host, port, source }
    }

    fn line(&self) -> String {
        let Self { host, port, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => format!("PORT: {port} is in use on {host}; stop the other process or set PORT"),
            io::ErrorKind::PermissionDenied => {
                format!("PORT: {port} is not open to this user; set PORT to 1024 or more")
            }
            io::ErrorKind::AddrNotAvailable => format!("HOST: {host} is not an address of this machine"),
            _ => format!("HOST: cannot listen on {host} port {port}: {source}"),
        }
    }
}

/// Listens on `host`; `::` takes IPv4 too, and stands for `0.0.0.0` where the machine has no IPv6.
pub(super) fn bind(host: IpAddr, port: u16) -> Result<TcpListener, BindError> {
    match listen(host, port) {
        Err(error) if host.is_ipv6() && host.is_unspecified() && no_ipv6(&error) => {
            listen(Ipv4Addr::UNSPECIFIED.into(), port)
        }
        listener => listener,
    }
    .map_err(|source| BindError::new(host, port, source))
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// "Address family not supported by protocol", which `io::ErrorKind` has no name for (Linux, all architectures).
const EAFNOSUPPORT: i32 = 97;

fn listen(host: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if host.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves connections until the drain is over.
pub(super) async fn serve(listener: TcpListener, router: Router, lifecycle: Lifecycle, settings: Arc<Settings>) {
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(connections::most(settings.max_connections, settings.database_max_connections));
    let server = Server { router, graceful, connections, settings };
    let delay = server.settings.shutdown_delay;
    let stop_accepting = async {
        lifecycle.draining().await;
        tokio::time::sleep(delay).await;
    };
    tokio::pin!(stop_accepting);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.connect(stream, peer).await,
                Err(error) => accept_failed(&error).await,
            },
            () = &mut stop_accepting => break,
        }
    }
    // Clients in the backlog believe that they are connected: take them before the socket closes, and read what they
    // have sent before unused connections are closed.
    for _ in 0..BACKLOG {
        let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await else { break };
        server.connect(stream, peer).await;
    }
    drop(listener);
    tokio::time::sleep(LAST_READ).await;
    server.drain().await;
}

struct Server {
    router: Router,
    graceful: GracefulShutdown,
    connections: Connections,
    settings: Arc<Settings>,
}

impl Server {
    async fn connect(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(connection) = self.connections.open().await else { return };
        // Answers are written whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let stream = WriteTimeout::new(stream, WRITE_PAUSE, self.settings.request_timeout);
        let stream = Refusals::new(stream, peer.ip(), self.settings.environment);
        let (router, timeout) = (self.router.clone(), self.settings.request_timeout);
        let service = OneConnection { router, timeout, peer, connection: connection.clone() };
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let served = self.graceful.watch(served);
        tokio::spawn(async move {
            tokio::select! {
                outcome = served => if let Err(error) = outcome {
                    tracing::debug!(%error, "connection ended early");
                },
                () = connection.closed() => tracing::debug!("a connection without a request is closed"),
            }
        });
    }

    /// Ends: requests in flight are finished, unless that takes longer than the settings allow.
    async fn drain(self) {
        let Self { graceful, connections, settings, .. } = self;
        let open = graceful.count();
        let late_heads = async {
            tokio::time::sleep(LAST_HEADS).await;
            connections.close_without_request();
            std::future::pending::<()>().await;
        };
        let ended = async {
            tokio::select! {
                () = graceful.shutdown() => {}
                () = late_heads => {}
            }
        };
        if tokio::time::timeout(settings.shutdown_drain, ended).await.is_err() {
            tracing::warn!(
                connections_at_stop = open,
                "requests were still in flight after {} s and are cut off; SHUTDOWN_DRAIN_SECONDS gives them longer",
                settings.shutdown_drain.as_secs()
            );
        }
    }
}

/// The router, as one connection uses it: for one request at a time.
struct OneConnection {
    router: Router,
    timeout: Duration,
    peer: SocketAddr,
    connection: Connection,
}

impl hyper::service::Service<Request<Incoming>> for OneConnection {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.connection.works();
        let deadline = tokio::time::Instant::now() + self.timeout;
        let connection = self.connection.clone();
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if !request.body().is_end_stream() {
            // For whoever waits for the body.
            request.extensions_mut().insert(connection.clone());
        }
        // A router is always ready.
        let response = self.router.clone().call(request);
        Box::pin(async move { Ok(response.await?.map(|body| Answer::new(body, deadline, connection))) })
    }
}

async fn accept_failed(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        // Out of file descriptors, most likely: accepting again at once would only spin.
        _ => {
            tracing::error!(%error, "cannot accept connections");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
