//! What passes walview's HTTP interface: the document of `/status`, read by `walview status` from
//! another process, and raw bytes in the place of a request.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;
use walview::http::{Report, bind, faults_of, serve};

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
    let again = serde_json::from_slice::<Report>(&written).map(|again| serde_json::to_vec(&again));
    assert!(matches!(again, Ok(Ok(again)) if again == written));
}

/// The server answers with a status that is no failure of its own, or closes; then answers others.
fn request(data: &[u8]) {
    let answer = ask(data);
    let status = answer.get(9..12).unwrap_or_default();
    assert!(!status.starts_with(b"500"), "{}", String::from_utf8_lossy(&answer));
    let alive = ask(b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(alive.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&alive));
}

fn ask(data: &[u8]) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(server()) else {
        panic!("the server is gone");
    };
    let mut answer = Vec::new();
    // It may close as soon as it has seen enough: then the rest cannot be sent.
    let sent = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let sent = sent.and_then(|()| stream.write_all(data));
    drop(sent.and_then(|()| stream.shutdown(Shutdown::Write)));
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("no answer and no end in 10 s")
        }
        _ => answer,
    }
}

fn server() -> SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    *SERVER.get_or_init(|| {
        let (told, tell) = std::sync::mpsc::channel();
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
                serve(listener, Vec::new(), metrics, stopped).await.expect("serves");
            });
        });
        tell.recv().expect("the server starts")
    })
}
