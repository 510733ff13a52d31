//! `walview demo`, as somebody types it: it ends by itself or by Ctrl-C, and leaves nothing behind.

use std::path::PathBuf;
use std::time::Duration;

use walview::demo::servers::TempHome;
use walview::demo::servers::process::{Launch, Process, Signal};

const LIMIT: Duration = Duration::from_secs(240);

struct Demo {
    process: Process,
    home: TempHome,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let home = TempHome::new("walview-test-").unwrap();
        let launch = Launch {
            program: PathBuf::from(env!("CARGO_BIN_EXE_walview")),
            args: ["demo", "betting"].iter().chain(args).map(|&arg| arg.to_owned()).collect(),
            // Where it makes its folder, so that this test can see what is left of it.
            env: vec![("TMPDIR".to_owned(), home.path().display().to_string())],
            user: None,
            log: home.log("demo"),
            death: Signal::TERM,
        };
        Self { process: Process::spawn("walview demo", &launch).unwrap(), home }
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.home.log("demo")).unwrap()
    }

    async fn until_printed(&mut self, text: &str) {
        let log = self.home.log("demo");
        let printed = async || std::fs::read_to_string(&log).unwrap().contains(text);
        self.process.until(&format!("at {text:?}"), LIMIT, printed).await.unwrap();
    }

    /// Waits for its end: the exit code, with nothing left running in its folder and no folder.
    async fn ended(mut self) -> (Option<i32>, String) {
        let status = self.process.exited(LIMIT).await.unwrap_or_else(|| {
            panic!("it does not end:\n{}", self.printed());
        });
        let left = std::fs::read_dir(self.home.path()).unwrap().flatten();
        let left: Vec<_> = left
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("walview-demo-"))
            .collect();
        assert!(left.is_empty(), "{left:?} is left behind:\n{}", self.printed());
        let running = running_in(&self.home.path().display().to_string());
        assert!(running.is_empty(), "still running: {running:?}");
        (status.code(), self.printed())
    }
}

/// Command lines of processes that name this folder.
fn running_in(folder: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect()
}

#[tokio::test]
async fn it_compares_and_ends_by_itself() {
    let demo = Demo::start(&["--rate", "100", "--for", "3s"]);
    let (code, printed) = demo.ended().await;
    assert_eq!(code, Some(0), "{printed}");
    for text in ["look by hand:", "tx/s", "0 differences", "summary"] {
        assert!(printed.contains(text), "{text:?} is missing:\n{printed}");
    }
}

#[tokio::test]
async fn ctrl_c_stops_everything() {
    for (args, moment) in [
        // While the servers start, and in the middle of its work.
        (["--rate", "50"], "walview demo"),
        (["--rate", "50"], "tx/s"),
    ] {
        let mut demo = Demo::start(&args);
        demo.until_printed(moment).await;
        demo.process.signal(Signal::INT).unwrap();
        let (code, printed) = demo.ended().await;
        assert_eq!(code, Some(0), "{printed}");
    }
}
