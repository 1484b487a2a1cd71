//! A network between server and database: hands on what it gets, each byte a given time later, in order and as fast as it
//! comes.
//!
//!     delay LISTEN-PORT PORT MICROSECONDS-EACH-WAY
//!
//! Threads, not tasks: tokio's timer counts whole milliseconds (docs.rs/tokio, `tokio::time::sleep`).

use anyhow::Context;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<u32> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [listen, port, delay] = arguments[..] else { anyhow::bail!("usage: delay LISTEN-PORT PORT MICROSECONDS") };
    let delay = Duration::from_micros(delay.into());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(listen)?)).context("LISTEN-PORT")?;
    for client in listener.incoming() {
        let client = client?;
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::try_from(port)?)) else { continue };
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        hand_on(client.try_clone()?, server.try_clone()?, delay);
        hand_on(server, client, delay);
    }
    Ok(())
}

/// Hands on what `from` says until it says no more.
fn hand_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}
