//! DNS for guests whose subnet names no servers: questions are passed on to the node's own resolvers.
//!
//! It listens in the network's namespace and asks from the node's, so an isolated network resolves too, and a
//! resolver on the node's loopback serves. It changes nothing in a message and keeps nothing.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::netns;

const PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one resolver is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most questions at a time, of one network.
const QUESTIONS_MAX: usize = 128;
/// The largest UDP message (EDNS rarely allows more).
const DATAGRAM_MAX: usize = 4096;
/// A DNS header, in bytes.
const HEADER: usize = 12;

/// The sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Opens the sockets in a namespace.
pub async fn open(space: &str, address: IpAddr) -> io::Result<Sockets> {
    netns::within(Some(space), move || {
        let udp = std::net::UdpSocket::bind((address, PORT))?;
        let tcp = std::net::TcpListener::bind((address, PORT))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Sockets { udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)? })
    })
    .await
}

/// Who is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Everyone on the network: it is the guests' own.
    All,
    /// These addresses: others are on the wire too.
    Only(BTreeSet<IpAddr>),
}

impl Audience {
    fn has(&self, ip: IpAddr) -> bool {
        match self {
            Audience::All => true,
            Audience::Only(ips) => ips.contains(&ip),
        }
    }
}

/// Answers until it is dropped. A socket that fails ends it; the next pass opens new ones.
pub async fn serve(sockets: Sockets, audience: watch::Receiver<Audience>) -> io::Error {
    let slots = Arc::new(Semaphore::new(QUESTIONS_MAX));
    tokio::select! {
        e = serve_udp(Arc::new(sockets.udp), slots.clone(), audience.clone()) => e,
        e = serve_tcp(sockets.tcp, slots, audience) => e,
    }
}

async fn serve_udp(
    socket: Arc<UdpSocket>,
    slots: Arc<Semaphore>,
    audience: watch::Receiver<Audience>,
) -> io::Error {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => return e,
        };
        // Under a flood a question is dropped, and asked again by who means it.
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        if !is_question(&buffer[..length]) || !audience.borrow().has(from.ip()) {
            continue;
        }
        let (socket, question) = (socket.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            let _slot = slot;
            let answer = match over_udp(&question).await {
                Ok(answer) => answer,
                Err(_) => failure(&question),
            };
            // Who does not listen any more needs no answer.
            let _ = socket.send_to(&answer, from).await;
        });
    }
}

async fn serve_tcp(
    listener: TcpListener,
    slots: Arc<Semaphore>,
    audience: watch::Receiver<Audience>,
) -> io::Error {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, from)) if audience.borrow().has(from.ip()) => stream,
            Ok(_) => continue,
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(e) => return e,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        tokio::spawn(async move {
            let _slot = slot;
            let _ = timeout(2 * PATIENCE, one_over_tcp(stream)).await;
        });
    }
}

/// One question and its answer; a client with more connects again (RFC 7766 lets a server close).
async fn one_over_tcp(mut client: TcpStream) -> io::Result<()> {
    let question = read_message(&mut client).await?;
    if !is_question(&question) {
        return Ok(());
    }
    let answer = match over_tcp(&question).await {
        Ok(answer) => answer,
        Err(_) => failure(&question),
    };
    write_message(&mut client, &answer).await
}

async fn over_udp(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut last = no_resolver();
    for resolver in resolvers().await {
        match timeout(PATIENCE, ask_udp(resolver, question)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) => last = e,
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

async fn ask_udp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    // A port of its own for each question: the kernel's random choice guards against forged answers.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= HEADER && buffer[..2] == question[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut last = no_resolver();
    for resolver in resolvers().await {
        let ask = async {
            let mut stream = TcpStream::connect(resolver).await?;
            write_message(&mut stream, question).await?;
            read_message(&mut stream).await
        };
        match timeout(PATIENCE, ask).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) => last = e,
            Err(e) => last = e.into(),
        }
    }
    Err(last)
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

fn no_resolver() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the node has no resolver")
}

/// The node's resolvers as they are now.
async fn resolvers() -> Vec<SocketAddr> {
    parse_resolv_conf(&tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default())
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip = words.next().filter(|w| *w == "nameserver").and(words.next())?;
        Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, PORT))
    });
    servers.take(3).collect()
}

fn is_question(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 == 0
}

/// "Server failure" for a question: its header and nothing else.
fn failure(question: &[u8]) -> Vec<u8> {
    let mut answer = question[..HEADER].to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x82;
    answer[4..].fill(0);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_the_nodes_file() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 9.9.9.9\n";
        let found: Vec<_> = parse_resolv_conf(text).iter().map(|a| a.ip().to_string()).collect();
        assert_eq!(found, ["127.0.0.53", "9.9.9.9"]);
    }

    #[test]
    fn a_failure_answers_the_question_asked() {
        let question = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0];
        assert!(is_question(&question));
        let answer = failure(&question);
        assert_eq!(answer[..4], [7, 8, 0x81, 0x82]);
        assert!(!is_question(&answer));
    }
}
