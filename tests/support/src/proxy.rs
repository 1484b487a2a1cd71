//! A reverse proxy in front of a server, where the machine has it.

use crate::{eventually, skip};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// Sends a request's body on as it comes.
    Haproxy,
    /// Sends a request on once its body is in.
    Nginx,
}

/// A running proxy, killed when this value goes. It tells the server of its clients in `X-Forwarded-For`.
#[derive(Debug)]
pub struct Proxy {
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
    _process: Child,
    _folder: TempDir,
}

/// Both stand in a folder that is not on every PATH.
const RUN: &str = "PATH=$PATH:/usr/sbin; exec \"$@\"";

impl Proxy {
    /// Starts it in front of this port of 127.0.0.1; `None`, with a loud skip, where there is none.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(kind: ProxyKind, server: u16) -> Option<Self> {
        let (name, version) = match kind {
            ProxyKind::Haproxy => ("haproxy", "-v"),
            ProxyKind::Nginx => ("nginx", "-v"),
        };
        if !run(&[name, version]).status().await.is_ok_and(|status| status.success()) {
            skip(&format!("no {name}: install {name}"));
            return None;
        }
        let folder = tempfile::tempdir_in("/tmp").expect("a temporary folder");
        let port = crate::postgres::free_port().expect("a free port");
        let path = folder.path().display();
        let text = match kind {
            ProxyKind::Haproxy => format!(
                "defaults\n mode http\n option forwardfor\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 frontend in\n bind 127.0.0.1:{port}\n default_backend out\n\
                 backend out\n server one 127.0.0.1:{server}\n"
            ),
            // One process, so that it ends with this value. Its folders are in the temporary one.
            ProxyKind::Nginx => format!(
                "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log stderr;\nevents {{ worker_connections 8192; }}\n\
                 http {{\n access_log off;\n client_body_temp_path {path}/body;\n proxy_temp_path {path}/proxy;\n\
                 fastcgi_temp_path {path}/fastcgi;\n uwsgi_temp_path {path}/uwsgi;\n scgi_temp_path {path}/scgi;\n\
                 server {{\n listen 127.0.0.1:{port};\n location / {{\n proxy_pass http://127.0.0.1:{server};\n\
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n }}\n }}\n}}\n"
            ),
        };
        let configuration = folder.path().join("configuration");
        std::fs::write(&configuration, text).expect("a file");
        let configuration = configuration.to_str().expect("a path of UTF-8");
        let mut command = match kind {
            ProxyKind::Haproxy => run(&["haproxy", "-db", "-f", configuration]),
            ProxyKind::Nginx => run(&["nginx", "-c", configuration, "-p", &path.to_string()]),
        };
        let process = command.spawn().expect("it starts");
        eventually("the proxy listens", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Some(Self { port, _process: process, _folder: folder })
    }
}

fn run(words: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", RUN, "sh"]).args(words).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
