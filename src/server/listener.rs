//! Listening, and ending in order: readiness first, then the socket, then the requests in flight.

use super::Lifecycle;
use super::refusals::Refusals;
use crate::config::{Environment, Settings};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

/// How long a client may take to send a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request that has arrived already may take to be read once the socket is closed.
const LAST_READ: Duration = Duration::from_millis(200);

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
    let stop_accepting = async {
        lifecycle.draining().await;
        tokio::time::sleep(settings.shutdown_delay).await;
    };
    tokio::pin!(stop_accepting);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connect(stream, peer, &router, &graceful, settings.environment),
                Err(error) => accept_failed(&error).await,
            },
            () = &mut stop_accepting => break,
        }
    }
    // Clients in the backlog believe that they are connected: take them before the socket closes, and read what they
    // have sent before unused connections are closed.
    for _ in 0..BACKLOG {
        let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await else { break };
        connect(stream, peer, &router, &graceful, settings.environment);
    }
    drop(listener);
    tokio::time::sleep(LAST_READ).await;
    let open = graceful.count();
    if tokio::time::timeout(settings.shutdown_drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            connections_at_stop = open,
            "requests were still in flight after {} s and are cut off; SHUTDOWN_DRAIN_SECONDS gives them longer",
            settings.shutdown_drain.as_secs()
        );
    }
}

fn connect(
    stream: TcpStream,
    peer: SocketAddr,
    router: &Router,
    graceful: &GracefulShutdown,
    environment: Environment,
) {
    // Answers are written whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let service = router.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.map(axum::body::Body::new)
    });
    let stream = Refusals::new(stream, peer.ip(), environment);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended early");
        }
    });
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
