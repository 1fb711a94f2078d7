//! etcd, as Debian packages it: its processes, and a client that speaks gRPC to it, by hand: the few messages are
//! written field by field (etcd's `rpc.proto`).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use image_builder::Paths;
use image_builder::apt::AptRoot;
use image_builder::stage::Step;

use super::load::{KEYS, VALUE_BYTES};

/// Debian's etcd, unpacked beside the build.
pub fn program(paths: &Paths) -> Result<PathBuf> {
    let tree = paths.workspace().join("target/bench/etcd");
    let program = tree.join("usr/bin/etcd");
    if !program.exists() {
        let step = Step::begin("etcd", tree.join("logs"));
        let unpacked = AptRoot::open(paths, &step).and_then(|apt| apt.unpack(&step, &["etcd-server"], &tree));
        step.end(&unpacked);
        unpacked
            .context("etcd is not there: its package is etcd-server, got from the machine's Debian mirror")?;
    }
    Ok(program)
}

/// A cluster of etcd. Its processes end with it.
pub struct Etcd {
    pub members: Vec<(Child, SocketAddr)>,
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Etcd {
    /// Starts so many with their files in this folder, and waits until they serve.
    pub async fn start(program: &Path, directory: &Path, count: usize) -> Result<Etcd> {
        let mut addresses = Vec::new();
        for _ in 0..count {
            addresses.push((free_port()?, free_port()?));
        }
        let all: Vec<_> =
            addresses.iter().enumerate().map(|(n, (_, peer))| format!("n{n}=http://{peer}")).collect();
        let mut members = Vec::new();
        for (n, (client, peer)) in addresses.iter().enumerate() {
            let child = Command::new(program)
                .args(["--name", &format!("n{n}"), "--initial-cluster", &all.join(",")])
                .arg("--data-dir")
                .arg(directory.join(format!("etcd-{n}")))
                .args(["--listen-client-urls", &format!("http://{client}")])
                .args(["--advertise-client-urls", &format!("http://{client}")])
                .args(["--listen-peer-urls", &format!("http://{peer}")])
                .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
                .args(["--log-level", "error", "--quota-backend-bytes", "8589934592"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))?;
            members.push((child, *client));
        }
        let etcd = Etcd { members };
        let deadline = Instant::now() + Duration::from_secs(60);
        while etcd.leader().await.is_err() {
            ensure!(Instant::now() < deadline, "etcd does not serve within a minute");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(etcd)
    }

    /// Which of them leads.
    pub async fn leader(&self) -> Result<usize> {
        for (place, (_, address)) in self.members.iter().enumerate() {
            let Ok(client) = Client::connect(*address).await else { continue };
            let status = client.call("/etcdserverpb.Maintenance/Status", &[]).await?;
            let header = field(&status, 1).and_then(|header| varint_field(header, 2));
            if header.is_some() && header == varint_field(&status, 4) {
                return Ok(place);
            }
        }
        bail!("no leader")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for (child, _) in &mut self.members {
            // It may have been killed already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A connection to one of them. Clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Client> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, address })
    }

    /// Calls a method with one message, for one.
    async fn call(&self, method: &str, message: &[u8]) -> Result<Bytes> {
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(message.len() as u32);
        frame.put_slice(message);
        let request = Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))?;
        let answer = self.sender.clone().send_request(request).await?.into_body().collect().await?;
        let status = answer.trailers().and_then(|t| t.get("grpc-status")).map(|s| s.as_bytes().to_vec());
        ensure!(status.as_deref() == Some(b"0"), "{method} was refused with status {status:?}");
        let bytes = answer.to_bytes();
        ensure!(bytes.len() >= 5, "{method} was answered with nothing");
        Ok(bytes.slice(5..))
    }

    pub async fn put(&self, n: u64) -> Result<()> {
        let mut message = BytesMut::new();
        put_field(&mut message, 1, format!("bench/{:06}", n % KEYS).as_bytes());
        put_field(&mut message, 2, &[7; VALUE_BYTES]);
        self.call("/etcdserverpb.KV/Put", &message).await.map(drop)
    }

    /// A linearizable read.
    pub async fn get(&self, n: u64) -> Result<()> {
        let mut message = BytesMut::new();
        put_field(&mut message, 1, format!("bench/{:06}", n % KEYS).as_bytes());
        self.call("/etcdserverpb.KV/Range", &message).await.map(drop)
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// A field of bytes.
fn put_field(out: &mut BytesMut, number: u64, value: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message: number, value of a number, bytes.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    std::iter::from_fn(move || {
        let key = take_varint(&mut bytes)?;
        let value = take_varint(&mut bytes)?;
        match key & 7 {
            0 => Some((key >> 3, value, &[][..])),
            2 => {
                let (data, rest) = bytes.split_at_checked(value as usize)?;
                bytes = rest;
                Some((key >> 3, 0, data))
            }
            _ => None,
        }
    })
}

fn field(bytes: &[u8], number: u64) -> Option<&[u8]> {
    fields(bytes).find(|(n, ..)| *n == number).map(|(_, _, data)| data)
}

fn varint_field(bytes: &[u8], number: u64) -> Option<u64> {
    fields(bytes).find(|(n, ..)| *n == number).map(|(_, value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_and_read() {
        let mut message = BytesMut::new();
        put_field(&mut message, 1, b"key");
        put_varint(&mut message, 4 << 3);
        put_varint(&mut message, 300);
        put_field(&mut message, 2, &[9; 200]);
        assert_eq!(&message[..5], [0x0a, 3, b'k', b'e', b'y']);
        assert_eq!(field(&message, 1), Some(&b"key"[..]));
        assert_eq!(varint_field(&message, 4), Some(300));
        assert_eq!(field(&message, 2).map(<[u8]>::len), Some(200));
        assert_eq!(field(&message, 3), None);
    }
}
