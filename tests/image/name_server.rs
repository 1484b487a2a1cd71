//! A name server that knows one name, on port 53 of a loopback address of its own.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use test_support::skip;

const NO_SUCH_NAME: u8 = 3;
const A: [u8; 2] = [0, 1];

/// A running name server, which ends with this value.
pub(crate) struct NameServer {
    pub(crate) address: Ipv4Addr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    name: &'static str,
    asked: AtomicUsize,
    stop: AtomicBool,
}

impl NameServer {
    /// Starts one that says `name` is 127.0.0.1, and knows nothing else; `None`, with a skip, where the port is not
    /// open to this user. Resolvers ask no other port.
    pub(crate) fn start(name: &'static str) -> Option<Self> {
        let (address, socket) = match free_address() {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                skip("port 53 is not open to this user (net.ipv4.ip_unprivileged_port_start): names from a DNS server");
                return None;
            }
            Err(error) => panic!("no address for a name server: {error}"),
        };
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let shared = Arc::new(Shared { name, asked: AtomicUsize::new(0), stop: AtomicBool::new(false) });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&socket)
        });
        Some(Self { address, shared, thread: Some(thread) })
    }

    /// How often it was asked for the name.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking(), "the name server panicked");
    }
}

fn free_address() -> std::io::Result<(Ipv4Addr, UdpSocket)> {
    let mut addresses = (1..=254).map(|last| Ipv4Addr::new(127, 53, 53, last));
    loop {
        let address = addresses.next().ok_or(ErrorKind::AddrInUse)?;
        match UdpSocket::bind((address, 53)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            socket => return Ok((address, socket?)),
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 512];
        while !self.stop.load(Ordering::SeqCst) {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer)
                && let Some(answer) = self.answer(&buffer[..length])
            {
                // Whoever has gone meanwhile asks again.
                let _ = socket.send_to(&answer, peer);
            }
        }
    }

    /// The answer to a query (RFC 1035, section 4).
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = query.split_at_checked(12)?;
        let end = rest.iter().position(|byte| *byte == 0)? + 1;
        let question = rest.get(..end + 4)?;
        let known = labels(&question[..end])?.eq_ignore_ascii_case(self.name);
        let answers = known && question[end..end + 2] == A;
        self.asked.fetch_add(known.into(), Ordering::SeqCst);

        let mut answer = header[..2].to_vec();
        // An answer, with authority, recursion asked for and to be had.
        answer.extend([0x85, 0x80 | if known { 0 } else { NO_SUCH_NAME }]);
        answer.extend([0, 1, 0, answers.into(), 0, 0, 0, 0]);
        answer.extend(question);
        if answers {
            // The question's name, A, IN, one second, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
        }
        Some(answer)
    }
}

/// A name as people write it.
fn labels(mut bytes: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    while let Some((length, rest)) = bytes.split_first()
        && *length > 0
    {
        let (label, rest) = rest.split_at_checked((*length).into())?;
        labels.push(str::from_utf8(label).ok()?);
        bytes = rest;
    }
    Some(labels.join("."))
}
