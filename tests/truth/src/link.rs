//! The ways between the processes, each through a relay that can be cut: with a reset, or silently, in one direction or
//! both. What was under way on a silent link arrives when it is mended, as what TCP sends again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Whole,
    /// Connections are reset, and none is made.
    Reset,
    /// Nothing arrives.
    Silent,
    /// What the caller says does not arrive.
    Unheard,
    /// What is answered does not arrive.
    Unanswered,
}

impl Mode {
    fn stalls(self, answers: bool) -> bool {
        self == Mode::Silent || self == if answers { Mode::Unanswered } else { Mode::Unheard }
    }
}

/// One way, from a caller to a listener.
pub struct Link(watch::Sender<Mode>);

impl Link {
    /// A relay to an address; answers where it listens.
    pub async fn to(address: SocketAddr) -> Result<(Link, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (at, (mode, seen)) = (listener.local_addr()?, watch::channel(Mode::Whole));
        Handle::current().spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                drop(caller.set_nodelay(true));
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    if !may_connect(&mut seen).await {
                        return drop(caller.set_zero_linger());
                    }
                    let Ok(called) = TcpStream::connect(address).await else {
                        return drop(caller.set_zero_linger());
                    };
                    drop(called.set_nodelay(true));
                    for stream in [&caller, &called] {
                        drop(stream.set_zero_linger());
                    }
                    relay(caller, called, seen).await;
                });
            }
        });
        Ok((Link(mode), at))
    }

    /// A relay of a Unix socket.
    pub fn to_socket(path: PathBuf, at: &Path) -> Result<Link> {
        let (listener, (mode, seen)) = (UnixListener::bind(at)?, watch::channel(Mode::Whole));
        Handle::current().spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let (mut seen, path) = (seen.clone(), path.clone());
                tokio::spawn(async move {
                    if may_connect(&mut seen).await
                        && let Ok(called) = UnixStream::connect(path).await
                    {
                        relay(caller, called, seen).await;
                    }
                });
            }
        });
        Ok(Link(mode))
    }

    pub fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }
}

/// Waits until a silent link is mended; false if it is reset.
async fn may_connect(seen: &mut watch::Receiver<Mode>) -> bool {
    let passed = seen.wait_for(|mode| !mode.stalls(false) && !mode.stalls(true)).await;
    passed.is_ok_and(|mode| *mode != Mode::Reset)
}

async fn relay<S: AsyncRead + AsyncWrite>(caller: S, called: S, mut seen: watch::Receiver<Mode>) {
    let (from_caller, to_caller) = tokio::io::split(caller);
    let (from_called, to_called) = tokio::io::split(called);
    let (asks, answers) = (seen.clone(), seen.clone());
    tokio::select! {
        () = carry(from_caller, to_called, asks, false) => {}
        () = carry(from_called, to_caller, answers, true) => {}
        _ = seen.wait_for(|mode| *mode == Mode::Reset) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut seen: watch::Receiver<Mode>,
    answers: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let stalled = seen.borrow().stalls(answers);
        if stalled {
            if seen.wait_for(|mode| !mode.stalls(answers)).await.is_err() {
                return;
            }
            // Sent again after a while.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
