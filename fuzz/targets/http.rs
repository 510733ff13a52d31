//! What passes walview's HTTP interface: the document of `/status`, read by `walview status` from
//! another process, and raw bytes in the place of a request.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;
use walview::http::{Report, Served, bind, faults_of, serve};

/// Only a server that hangs takes as long.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The first byte chooses.
pub(crate) fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    if choice % 8 == 0 { request(rest) } else { document(rest) }
}

fn document(data: &[u8]) {
    let Ok(report) = serde_json::from_slice::<Report>(data) else {
        return;
    };
    for status in &report.pipelines {
        drop(walview::status::render(status));
        drop(faults_of(status));
    }
    let written = serde_json::to_vec(&report).unwrap_or_default();
    assert!(serde_json::from_slice::<Report>(&written).is_ok());
}

/// The server answers with a status that is no failure of its own, or closes; then answers others.
fn request(data: &[u8]) {
    let answer = ask(&[data, b"\r\n\r\n"].concat(), 12, true);
    let status = answer.get(9..12).unwrap_or_default();
    assert!(!status.starts_with(b"5"), "{}", answer.escape_ascii());
    let alive = ask(b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 64, false);
    assert!(alive.starts_with(b"HTTP/1.1 200"), "{}", alive.escape_ascii());
}

/// What comes back, up to `bytes_max`. `ends`: nothing more follows, so that a server that waits for
/// the rest of a request closes.
fn ask(data: &[u8], bytes_max: u64, ends: bool) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(server()) else {
        panic!("the server is gone");
    };
    let mut answer = Vec::new();
    // It may close as soon as it has seen enough: then the rest cannot be sent.
    drop(stream.set_read_timeout(Some(ANSWER_MAX)).and_then(|()| stream.write_all(data)));
    if ends {
        drop(stream.shutdown(Shutdown::Write));
    }
    match stream.take(bytes_max).read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("no answer and no end in {ANSWER_MAX:?}")
        }
        _ => answer,
    }
}

fn server() -> SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    *SERVER.get_or_init(|| {
        let (told, tell) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let (listener, address) = bind(any).await.expect("a port");
                told.send(address).expect("somebody waits");
                let metrics = metrics_exporter_prometheus::PrometheusBuilder::new();
                let metrics = metrics.build_recorder().handle();
                // Kept to the end: the server stops when the sender says so or goes away.
                let (_stop, stopped) = tokio::sync::watch::channel(false);
                let served = Served { boards: vec![], desks: vec![], token: "known".to_owned() };
                serve(listener, served, metrics, stopped).await.expect("serves");
            });
        });
        tell.recv().expect("the server starts")
    })
}
