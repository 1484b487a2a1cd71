//! A way to a server on this machine that can fall silent, as behind a firewall that has forgotten its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Relays connections; ends with this value.
#[derive(Debug)]
pub struct Relay {
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
    target: Arc<AtomicU16>,
    silences: watch::Sender<u32>,
    task: JoinHandle<()>,
}

impl Relay {
    /// One that leads to this port of 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (target, silences) = (Arc::new(AtomicU16::new(target)), watch::Sender::new(0));
        let (to, silent) = (Arc::clone(&target), silences.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to.load(Ordering::Relaxed), silent.subscribe()));
            }
        });
        Self { port, target, silences, task }
    }

    /// From now on, the open connections carry nothing and stay open. New ones work.
    pub fn fall_silent(&self) {
        self.silences.send_modify(|count| *count += 1);
    }

    /// New connections lead to this port.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, target: u16, mut silent: watch::Receiver<u32>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        Ok(()) = silent.changed() => std::future::pending().await,
    }
}
