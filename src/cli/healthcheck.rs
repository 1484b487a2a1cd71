//! `bulkhead healthcheck`: the image has no curl, so the binary asks its own server.

use super::{Failure, runtime};
use crate::config::Settings;
use anyhow::anyhow;
use axum::http::{Request, StatusCode, header::HOST};
use clap::Args;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// A container engine's own limit is longer; this one's error says more.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// Ask whether it is ready, not only whether it lives
    #[arg(long)]
    ready: bool,
}

impl Healthcheck {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let settings = Settings::from_env()?;
        let path = if self.ready { "/api/v1/health/ready" } else { "/api/v1/health/live" };
        let address = SocketAddr::new(own_address(settings.host), settings.port);
        let status = runtime()?
            .block_on(async { tokio::time::timeout(TIMEOUT, get(address, path)).await })
            .map_err(|_| anyhow!("http://{address}{path} has not answered within {} s", TIMEOUT.as_secs()))?
            .map_err(|error| anyhow!("http://{address}{path} does not answer: {error}"))?;
        if status == StatusCode::OK { Ok(()) } else { Err(anyhow!("http://{address}{path} answers {status}").into()) }
    }
}

/// Where a server that listens on `host` is reached from this machine.
fn own_address(host: IpAddr) -> IpAddr {
    match host {
        // The `::` listener takes IPv4 too, also where the machine has no IPv6.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) | IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        host => host,
    }
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<StatusCode> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let status = sender.send_request(request).await?.status();
    connection.abort();
    Ok(status)
}
