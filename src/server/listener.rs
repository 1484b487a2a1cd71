//! Listens, serves connections, and stops in order: first readiness, then the socket, then the requests in progress.

use super::connections::{self, Connection, Connections};
use super::hyper_errors::HyperErrorRewriter;
use super::response_body::ResponseBody;
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
#[cfg(target_os = "linux")]
use socket2::SockFilter;
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

/// The size of a connection's buffers, in bytes. It limits the head and everything else that is read before a request is
/// handled, and the part of a response that is held for a client that does not read it.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client may read nothing of a response.
const WRITE_PAUSE: Duration = Duration::from_secs(10);

/// How long a client whose connection the kernel is about to complete may take to send the last packet of its handshake.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(10);

/// After the listening socket is closed, the time to read requests that have already arrived.
const FINAL_READ_GRACE: Duration = Duration::from_millis(200);

/// After that, how long a client may take to send the rest of a head.
const FINAL_HEAD_GRACE: Duration = Duration::from_secs(2);

/// The most connections that the kernel holds until the process accepts them.
const BACKLOG: i32 = 1024;

/// The process cannot listen; the text says which variable to change.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct BindError {
    variable: &'static str,
    host: IpAddr,
    port: u16,
    source: io::Error,
}

impl BindError {
    fn text(&self) -> String {
        let Self { variable, host, port, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{variable}: {port} is in use on {host}; stop the other process or set {variable}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("{variable}: {port} is not open to this user; set {variable} to 1024 or more")
            }
            io::ErrorKind::AddrNotAvailable => format!("HOST: {host} is not an address of this machine"),
            _ => format!("HOST: cannot listen on {host} port {port}: {source}"),
        }
    }
}

/// A port that is taken, and refuses connections until the process listens on it.
pub(super) struct TakenPort {
    socket: Socket,
    variable: &'static str,
    host: IpAddr,
    port: u16,
}

/// Takes the port, which `variable` sets, on `host`. `::` takes IPv4 too; on a machine without IPv6 it means `0.0.0.0`.
pub(super) fn bind(variable: &'static str, host: IpAddr, port: u16) -> Result<TakenPort, BindError> {
    let socket = match take(host, port) {
        Err(error) if host.is_ipv6() && host.is_unspecified() && no_ipv6(&error) => {
            take(Ipv4Addr::UNSPECIFIED.into(), port)
        }
        taken => taken,
    };
    let socket = socket.map_err(|source| BindError { variable, host, port, source })?;
    Ok(TakenPort { socket, variable, host, port })
}

impl TakenPort {
    /// Listens, and says where.
    pub(super) fn listen(self) -> Result<(TcpListener, SocketAddr), BindError> {
        let Self { socket, variable, host, port } = self;
        let listening = || {
            socket.listen(BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        listening().map_err(|source| BindError { variable, host, port, source })
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// "Address family not supported by protocol", which `io::ErrorKind` has no name for (Linux, all architectures).
const EAFNOSUPPORT: i32 = 97;

fn take(host: IpAddr, port: u16) -> io::Result<Socket> {
    let address = SocketAddr::new(host, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if host.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Serves connections until the process has stopped in order.
pub(super) async fn serve(listener: TcpListener, router: Router, lifecycle: Lifecycle, settings: Arc<Settings>) {
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(connections::limit(settings.max_connections, settings.database_max_connections));
    let server = Server { router, graceful, connections, settings };
    let delay = server.settings.shutdown_delay;
    let stop_accepting = async {
        lifecycle.draining().await;
        // Where it was never ready, no balancer has sent it anything.
        if lifecycle.has_served() {
            tokio::time::sleep(delay).await;
        }
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
    match Closing::begin(listener) {
        Ok(closing) => server.connect_last(closing).await,
        Err(error) => tracing::warn!(%error, "a connection that nobody accepted yet may be cut off"),
    }
    tokio::time::sleep(FINAL_READ_GRACE).await;
    server.drain().await;
}

/// A listening socket that takes no new connection and is about to close.
///
/// For a client whose connection the kernel has completed the server is there, and the request may be on its way; a close resets
/// what nobody accepted. A proxy sends a POST that was reset nowhere else. So new connections end first: then none can come
/// between the last accept and the close.
struct Closing(std::net::TcpListener);

impl Closing {
    fn begin(listener: TcpListener) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Err(error) = socket2::SockRef::from(&listener).attach_filter(&NO_NEW_CONNECTION) {
            tracing::debug!(%error, "this machine takes new connections until the port is closed");
        }
        listener.into_std().map(Self)
    }

    /// The next connection that the kernel has completed. It asks the kernel: tokio may not know yet.
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.accept()?;
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    }
}

/// A filter that drops packets with the flag SYN alone. Its client sends another a second later and is refused then, before it
/// has sent anything. A packet begins with its TCP header here; RFC 9293, 3.1 has the flags in its byte 13.
///
/// <https://www.kernel.org/doc/html/latest/networking/filter.html>
#[cfg(target_os = "linux")]
const NO_NEW_CONNECTION: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),     // ldb [13]
    SockFilter::new(0x45, 0, 1, 0x02),   // jset #SYN
    SockFilter::new(0x06, 0, 0, 0),      // ret #0: drop
    SockFilter::new(0x06, 0, 0, 0xFFFF), // ret #65535: take whole
];

struct Server {
    router: Router,
    graceful: GracefulShutdown,
    connections: Connections,
    settings: Arc<Settings>,
}

impl Server {
    /// Accepts what the kernel has completed, and what it is about to.
    async fn connect_last(&self, closing: Closing) {
        for grace in [HANDSHAKE_GRACE, Duration::ZERO] {
            for _ in 0..=BACKLOG {
                match closing.accept() {
                    Ok((stream, peer)) => self.connect(stream, peer).await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => tracing::debug!(%error, "a connection ended before it was accepted"),
                }
            }
            tokio::time::sleep(grace).await;
        }
    }

    async fn connect(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(connection) = self.connections.open().await else { return };
        // Responses are written whole: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let stream = WriteTimeout::new(stream, WRITE_PAUSE, self.settings.request_timeout);
        let stream = HyperErrorRewriter::new(stream, peer.ip(), self.settings.environment);
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
                () = connection.closed() => tracing::debug!("closed a connection that waited for its client"),
            }
        });
    }

    /// Finishes the requests in progress, unless that takes longer than the settings allow.
    async fn drain(self) {
        let Self { graceful, connections, settings, .. } = self;
        let open = graceful.count();
        let late_heads = async {
            tokio::time::sleep(FINAL_HEAD_GRACE).await;
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

/// The service of one connection: the router, for one request at a time.
struct OneConnection {
    router: Router,
    timeout: Duration,
    peer: SocketAddr,
    connection: Connection,
}

impl hyper::service::Service<Request<Incoming>> for OneConnection {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.connection.set_busy();
        let deadline = tokio::time::Instant::now() + self.timeout;
        let connection = self.connection.clone();
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if !request.body().is_end_stream() {
            // For the layer that waits for the body.
            request.extensions_mut().insert(connection.clone());
        }
        // A router is always ready.
        let response = self.router.clone().call(request);
        Box::pin(async move { Ok(response.await?.map(|body| ResponseBody::new(body, deadline, connection))) })
    }
}

async fn accept_failed(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        // Most likely there are no file descriptors left; accepting again at once would fail in a busy loop.
        _ => {
            tracing::error!(%error, "cannot accept connections");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
