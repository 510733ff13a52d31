//! A TCP proxy that misbehaves on command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// Requests stay in the proxy until the mode changes.
    Hold,
    /// Requests arrive whole; at the first byte of a reply the connection is cut.
    DropReply,
    /// The connection is cut after so many more bytes of requests.
    CutAfter(usize),
}

pub(super) struct Proxy {
    address: String,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    accept: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    holding: AtomicBool,
    /// Bytes left before a cut.
    left: AtomicUsize,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Proxy {
    pub(super) async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mode, modes) = watch::channel(Mode::Pass);
        let shared = Arc::new(Shared::default());
        let (server, at) = (server.to_owned(), Arc::clone(&shared));
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(&server).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                let (cut, cuts) = watch::channel(false);
                let cut = Arc::new(cut);
                tokio::spawn(requests(
                    from_client,
                    to_server,
                    modes.clone(),
                    Arc::clone(&at),
                    Arc::clone(&cut),
                    cuts.clone(),
                ));
                tokio::spawn(replies(from_server, to_client, modes.clone(), cut, cuts));
            }
        });
        Self { address, mode, shared, accept }
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    pub(super) fn set(&self, mode: Mode) {
        if let Mode::CutAfter(bytes) = mode {
            self.shared.left.store(bytes, Ordering::SeqCst);
        }
        self.shared.holding.store(false, Ordering::SeqCst);
        self.mode.send_replace(mode);
    }

    /// Waits until a request is being held.
    pub(super) async fn held(&self) {
        while !self.shared.holding.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    shared: Arc<Shared>,
    cut: Arc<watch::Sender<bool>>,
    mut cuts: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = cuts.wait_for(|cut| *cut) => 0,
        };
        let Some(mut bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Hold => {
                shared.holding.store(true, Ordering::SeqCst);
                modes.wait_for(|mode| *mode != Mode::Hold).await.ok();
            }
            Mode::CutAfter(_) => {
                let left = shared.left.load(Ordering::SeqCst);
                let pass = left.min(bytes.len());
                shared.left.store(left - pass, Ordering::SeqCst);
                if pass < bytes.len() {
                    bytes = bytes.get(..pass).unwrap_or_default();
                    to.write_all(bytes).await.ok();
                    cut.send_replace(true);
                    break;
                }
            }
            Mode::Pass | Mode::DropReply => {}
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    modes: watch::Receiver<Mode>,
    cut: Arc<watch::Sender<bool>>,
    mut cuts: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = cuts.wait_for(|cut| *cut) => 0,
        };
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let mode = *modes.borrow();
        if mode == Mode::DropReply || to.write_all(bytes).await.is_err() {
            break;
        }
    }
    cut.send_replace(true);
}
