//! A TCP proxy that misbehaves on command, in front of any server.
//!
//! ```text
//!  client ──► requests: pass · hold · delay · cut after n bytes ──► server
//!         ◄── replies:  pass · hold · drop, and cut the connection ──┘
//! ```
//!
//! What is held is delivered late, once the mode changes, even after its client has gone: what a
//! network does with a packet that was stuck. A connection to a server that is not there is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes taken from a socket in one go.
const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Requests stay in the proxy until the mode changes; replies pass.
    Hold,
    /// Replies stay in the proxy until the mode changes; requests pass.
    HoldReplies,
    /// Nothing passes either way until the mode changes: a dead network, both ends in the belief
    /// that they are connected.
    Freeze,
    /// Everything that a client says arrives so much later.
    Delay(Duration),
    /// Requests arrive whole; at the first byte of a reply the connection is cut.
    DropReply,
    /// The connection is cut after so many more bytes of requests.
    CutAfter(usize),
}

impl Mode {
    fn holds_requests(self) -> bool {
        matches!(self, Self::Hold | Self::Freeze)
    }

    fn holds_replies(self) -> bool {
        matches!(self, Self::HoldReplies | Self::Freeze)
    }
}

/// Dropping it closes all connections.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    mode: watch::Sender<Mode>,
    /// Counts up at [`Proxy::cut`]; each connection ends that began before.
    cuts: watch::Sender<usize>,
    /// Requests held at this moment.
    held: watch::Sender<usize>,
    /// Replies that never arrived.
    dropped: AtomicUsize,
    /// Bytes left before a cut.
    left: AtomicUsize,
}

impl Proxy {
    /// In front of `server` (`host:port`), on a port of its own.
    ///
    /// # Errors
    /// No port can be listened on.
    pub async fn start(server: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            held: watch::Sender::new(0),
            dropped: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server.to_owned(), Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// `host:port`, for clients.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.clone()
    }

    pub fn set(&self, mode: Mode) {
        if let Mode::CutAfter(bytes) = mode {
            self.shared.left.store(bytes, Ordering::SeqCst);
        }
        self.shared.mode.send_replace(mode);
    }

    /// Ends all connections there are; new ones may be made.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Waits until a request is being held.
    pub async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        held.wait_for(|held| *held > 0).await.ok();
    }

    /// Waits until what was held has been delivered.
    pub async fn released(&self) {
        let mut held = self.shared.held.subscribe();
        held.wait_for(|held| *held == 0).await.ok();
    }

    /// How many replies were dropped.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // The ones that ended are forgotten.
        while connections.try_join_next().is_some() {}
        let (server, shared) = (server.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(upstream) = TcpStream::connect(&server).await else {
                return;
            };
            // As without a proxy: a small request does not wait for more.
            client.set_nodelay(true).ok();
            upstream.set_nodelay(true).ok();
            let mut cuts = shared.cuts.subscribe();
            let cut = cuts.borrow_and_update().wrapping_add(1);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = upstream.into_split();
            let ended = Arc::new(watch::Sender::new(false));
            let requests =
                requests(from_client, to_server, Arc::clone(&shared), Arc::clone(&ended));
            let replies = replies(from_server, to_client, Arc::clone(&shared), ended);
            tokio::select! {
                ((), ()) = async { tokio::join!(requests, replies) } => {}
                _ = cuts.wait_for(|cuts| *cuts >= cut) => {}
            }
        });
    }
}

/// Passes on what the client says, until it is cut. A client that goes ends only this direction,
/// and only after what it said has been delivered.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    ended: Arc<watch::Sender<bool>>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut modes, mut ends) = (shared.mode.subscribe(), ended.subscribe());
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = ends.wait_for(|ended| *ended) => 0,
        };
        let Some(mut bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Hold | Mode::Freeze => {
                shared.held.send_modify(|held| *held += 1);
                modes.wait_for(|mode| !mode.holds_requests()).await.ok();
                let written = to.write_all(bytes).await;
                shared.held.send_modify(|held| *held -= 1);
                if written.is_err() {
                    break;
                }
                continue;
            }
            Mode::Delay(time) => tokio::time::sleep(time).await,
            Mode::CutAfter(_) => {
                let left = shared.left.load(Ordering::SeqCst);
                let pass = left.min(bytes.len());
                shared.left.store(left - pass, Ordering::SeqCst);
                if pass < bytes.len() {
                    bytes = bytes.get(..pass).unwrap_or_default();
                    to.write_all(bytes).await.ok();
                    ended.send_replace(true);
                    break;
                }
            }
            Mode::Pass | Mode::DropReply | Mode::HoldReplies => {}
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    ended: Arc<watch::Sender<bool>>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut modes, mut ends) = (shared.mode.subscribe(), ended.subscribe());
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = ends.wait_for(|ended| *ended) => 0,
        };
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        modes.wait_for(|mode| !mode.holds_replies()).await.ok();
        if *modes.borrow() == Mode::DropReply {
            shared.dropped.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    ended.send_replace(true);
}
