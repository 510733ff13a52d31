//! A program as a child process that never outlives this one.
//!
//! ```text
//!  Process::spawn ──► spawner thread ──► setpriv --pdeathsig … ──exec──► the program
//! ```
//!
//! - Each child leads a process group of its own: a Ctrl-C in the terminal reaches only us, and we
//!   stop the others in order.
//! - Linux sends the death signal when the *thread* that forked ends, not the process. Tests run on
//!   threads that end early, so one thread that never ends starts everything.
//! - `setpriv` execs, so the pid is the program's own.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::time::{Instant, sleep};

/// How often a state that announces itself nowhere is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How much of the end of a log is read for a message.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub user: Option<User>,
    /// Standard output and error go here, appended.
    pub log: PathBuf,
    /// What the program gets when we drop it or die: the fastest way to end it that leaves no
    /// debris in shared memory.
    pub death: Signal,
}

/// The account that a program runs under.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    death: Signal,
}

impl Process {
    pub fn spawn(name: &str, launch: &Launch) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)
            .with_context(|| format!("cannot write the log {:?}", launch.log))?;
        let mut command = launch.command();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn_from_lasting_thread(command)
            .with_context(|| format!("cannot start {name} ({:?})", launch.program))?;
        Ok(Self { name: name.to_owned(), child, log: launch.log.clone(), death: launch.death })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails, with the end of the log, if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("ended unexpectedly ({status})"))),
        }
    }

    /// An error about this program, with the end of its log.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        let tail = log_tail(&self.log, 15);
        anyhow!("{} {what}; the end of its log {:?}:\n{tail}", self.name, self.log)
    }

    /// Waits until `ready` says so; fails when the program ends or `limit` has passed.
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if ready().await {
                // The answer may have come from another program on the port that ours lost.
                return self.check_running();
            }
            self.check_running()?;
            if Instant::now() >= deadline {
                return Err(self.failure(&format!("was not {what} within {limit:?}")));
            }
            sleep(POLL).await;
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_pid(self.child.id(), signal)
            .with_context(|| format!("cannot signal {} (pid {})", self.name, self.child.id()))
    }

    /// Waits for the end, at most `limit`.
    pub async fn exited(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(POLL).await;
        }
    }

    /// Asks it to end and waits; an error if it does not within `limit` (it is then killed).
    pub async fn stop(mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(signal)?;
        match self.exited(limit).await {
            Some(status) => Ok(status),
            None => {
                let failure = self.failure(&format!("did not stop within {limit:?}, killed"));
                self.kill9().await?;
                Err(failure)
            }
        }
    }

    /// `SIGKILL` to it and to its children, and waits until all are gone, so that what they held
    /// (ports, shared memory) is free.
    pub async fn kill9(mut self) -> Result<()> {
        let limit = Duration::from_secs(20);
        // Halted first: a server that runs could fork between the look and the kill, and that
        // child would hold on to ports and shared memory.
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + limit;
        while !halted(self.child.id()) && Instant::now() < deadline {
            sleep(POLL).await;
        }
        let children = children_of(self.child.id());
        self.signal(Signal::KILL)?;
        for child in &children {
            // May be gone already: it saw its parent die.
            signal_pid(*child, Signal::KILL).ok();
        }
        if self.exited(limit).await.is_none() {
            bail!("{} (pid {}) survived SIGKILL for {limit:?}", self.name, self.child.id());
        }
        let deadline = Instant::now() + limit;
        while children.iter().any(|child| alive(*child)) {
            if Instant::now() >= deadline {
                bail!("children of {} survived SIGKILL for {limit:?}", self.name);
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Stops it where it stands, children included: its connections stay open and say nothing.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        for child in children_of(self.child.id()) {
            signal_pid(child, Signal::STOP).ok();
        }
        Ok(())
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) -> Result<()> {
        for child in children_of(self.child.id()) {
            signal_pid(child, Signal::CONT).ok();
        }
        self.signal(Signal::CONT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // A frozen process acts on nothing but SIGKILL until it goes on.
        self.thaw().ok();
        self.signal(self.death).ok();
        self.child.wait().ok();
    }
}

impl Launch {
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(signal_name(self.death));
        if let Some(user) = self.user {
            command.arg("--reuid").arg(user.uid.to_string());
            command.arg("--regid").arg(user.gid.to_string()).arg("--clear-groups");
        }
        command.arg("--").arg(&self.program).args(&self.args);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
    }

    /// Runs it to its end; an error, with what it wrote, if it fails.
    pub async fn run(&self, name: &str, limit: Duration) -> Result<()> {
        let mut process = Process::spawn(name, self)?;
        match process.exited(limit).await {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(process.failure(&format!("failed ({status})"))),
            None => Err(process.failure(&format!("did not end within {limit:?}"))),
        }
    }
}

/// The last lines of a log, for a message.
pub fn log_tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(cannot be read: {error})"));
    let all: Vec<&str> = text.lines().collect();
    let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
    tail.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn signal_pid(pid: u32, signal: Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// Direct children; PostgreSQL's have no others of interest.
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Whether it runs; a zombie that its new parent has not collected yet does not.
fn alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z')
}

/// Whether it can do nothing more: stopped by a signal, or at its end.
fn halted(pid: u32) -> bool {
    state_of(pid).is_none_or(|state| "TtZ".contains(state))
}

/// The letter that `proc(5)` gives for its state; `None` where there is no such process.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

fn signal_name(signal: Signal) -> &'static str {
    if signal == Signal::QUIT {
        "QUIT"
    } else if signal == Signal::TERM {
        "TERM"
    } else {
        "KILL"
    }
}

type Job = (Command, SyncSender<std::io::Result<Child>>);

fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<SyncSender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = sync_channel::<Job>(1);
        std::thread::spawn(move || {
            for (mut command, reply) in queue {
                // The one who asked waits for the answer, so somebody is there.
                reply.send(command.spawn()).ok();
            }
        });
        Mutex::new(jobs)
    });
    let (reply, answer) = sync_channel(1);
    spawner
        .lock()
        .map_err(|_poisoned| anyhow!("the spawner's lock is poisoned"))?
        .send((command, reply))
        .context("the thread that starts processes has ended")?;
    Ok(answer.recv().context("the thread that starts processes has ended")??)
}
